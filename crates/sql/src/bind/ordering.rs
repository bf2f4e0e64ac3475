//! ORDER BY, in all its places: equal values must be equal to what sorts them, so that the next
//! sort key decides, and what follows one another must do so as in PostgreSQL.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use ruslo_repr::Error;
use ruslo_repr::schema::NUMERIC;

use super::typing::keyed;
use crate::error::to_df;
use crate::functions::order_form;

/// Sorts by forms that compare as the values do.
pub(super) fn order_all(sorts: &mut [Sort], schema: &DFSchema) -> DfResult<()> {
    for sort in sorts {
        let ty = sort.expr.get_type(schema)?;
        sort.expr = order_form(std::mem::take(&mut sort.expr), &ty);
    }
    Ok(())
}

/// PARTITION BY, ORDER BY and the frame of a window.
pub(super) fn settle_window(mut window: Box<WindowFunction>, schema: &DFSchema) -> DfResult<Expr> {
    let params = &mut window.params;
    for key in &mut params.partition_by {
        *key = keyed(std::mem::take(key), schema)?;
    }
    let mut has_ranges = true;
    for sort in &params.order_by {
        has_ranges &= !without_ranges(&sort.expr.get_type(schema)?);
    }
    order_all(&mut params.order_by, schema)?;
    let frame = &params.window_frame;
    let open = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
            offset.is_null()
        }
    };
    let without_offsets = open(&frame.start_bound) && open(&frame.end_bound);
    if frame.units == WindowFrameUnits::Range && without_offsets && !has_ranges {
        // From peers to peers: over such a frame groups mean the same as ranges.
        let unbounded = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::CurrentRow => WindowFrameBound::CurrentRow,
            WindowFrameBound::Preceding(_) => WindowFrameBound::Preceding(NO_OFFSET),
            WindowFrameBound::Following(_) => WindowFrameBound::Following(NO_OFFSET),
        };
        let (start, end) = (unbounded(&frame.start_bound), unbounded(&frame.end_bound));
        params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
    }
    if frame_of(&window).units == WindowFrameUnits::Range && !without_offsets && !has_ranges {
        let message = "RANGE with an offset is not supported over this type of ORDER BY";
        let error = Error::unsupported(message).with_hint("Use ROWS or GROUPS.");
        return Err(to_df(error));
    }
    Ok(Expr::WindowFunction(window))
}

fn frame_of(window: &WindowFunction) -> &WindowFrame {
    &window.params.window_frame
}

const NO_OFFSET: datafusion::common::ScalarValue = datafusion::common::ScalarValue::UInt64(None);

/// Types whose values cannot be added to, as DataFusion sees them.
fn without_ranges(ty: &DataType) -> bool {
    *ty == NUMERIC
        || matches!(
            ty,
            DataType::Interval(_) | DataType::LargeUtf8 | DataType::Binary
        )
}
