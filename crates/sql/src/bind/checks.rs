//! Queries that are refused, or said in another way, before their names are looked at.

use datafusion::sql::sqlparser::ast as sql;
use ruslo_repr::{Error, Result};

use super::rewrite::number;

/// FETCH FIRST as LIMIT.
pub(super) fn fetch_as_limit(query: &mut sql::Query, fetch: sql::Fetch) -> Result<()> {
    if fetch.with_ties || fetch.percent {
        return Err(Error::unsupported(
            "FETCH FIRST … WITH TIES or PERCENT is not supported",
        ));
    }
    let rows = fetch.quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(sql::LimitClause::LimitOffset {
                limit: Some(rows),
                offset: None,
                limit_by: vec![],
            });
        }
        Some(sql::LimitClause::LimitOffset { limit, .. }) => *limit = Some(rows),
        Some(sql::LimitClause::OffsetCommaLimit { limit, .. }) => *limit = rows,
    }
    Ok(())
}

/// INTERSECT ALL and EXCEPT ALL number the rows, which a view cannot.
pub(super) fn check_set_operations(body: &sql::SetExpr, in_view: bool) -> Result<()> {
    let sql::SetExpr::SetOperation {
        left,
        op,
        set_quantifier,
        right,
    } = body
    else {
        return Ok(());
    };
    let by_name = matches!(
        set_quantifier,
        sql::SetQuantifier::ByName
            | sql::SetQuantifier::AllByName
            | sql::SetQuantifier::DistinctByName
    );
    if by_name {
        return Err(Error::unsupported(format!("{op} BY NAME is not supported")));
    }
    let counts_rows = *op != sql::SetOperator::Union && *set_quantifier == sql::SetQuantifier::All;
    if counts_rows && in_view {
        let message = format!("{op} ALL is not supported in a view yet");
        let hint = format!("{op} without ALL is, and counting rows per group can replace ALL.");
        return Err(Error::unsupported(message).with_hint(hint));
    }
    check_set_operations(left, in_view)?;
    check_set_operations(right, in_view)
}

/// FULL JOIN with USING would show the left side's key where only the right side has a row.
pub(super) fn check_joins(from: &sql::TableWithJoins) -> Result<()> {
    for join in &from.joins {
        let (side, constraint) = match &join.join_operator {
            sql::JoinOperator::FullOuter(constraint) => ("FULL", constraint),
            sql::JoinOperator::Right(c) | sql::JoinOperator::RightOuter(c) => ("RIGHT", c),
            _ => continue,
        };
        let merged = matches!(
            constraint,
            sql::JoinConstraint::Using(_) | sql::JoinConstraint::Natural
        );
        if merged {
            let message = format!("{side} JOIN with USING or NATURAL is not supported yet");
            return Err(Error::unsupported(message)
                .with_hint("Write ON a.x = b.x and select COALESCE(a.x, b.x)."));
        }
    }
    Ok(())
}
