//! Long chains as flat trees, as soon as they are parsed: everything that follows takes time by
//! the depth of an expression, and more than in proportion.
//!
//! ```text
//!   ((a AND b) AND c) AND d     (a AND b) AND (c AND d)
//!   x::int::int                 x::int
//! ```
//!
//! Only operators that may be bracketed in any way are; a sum of many floats so loses less.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};

/// Chains that are shorter stay as they were written.
const TERMS_MIN: usize = 32;

/// Flattens every chain of a query or statement.
pub(super) fn flatten(tree: &mut impl VisitMut) {
    let ControlFlow::Continue(()) = tree.visit(&mut Flattener);
}

struct Flattener;

type Flow = ControlFlow<std::convert::Infallible>;

impl VisitorMut for Flattener {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> Flow {
        flatten_unions(&mut query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut sql::Expr) -> Flow {
        match expr {
            sql::Expr::BinaryOp { op, .. } if is_associative(op) => flatten_chain(expr),
            sql::Expr::Cast { .. } => flatten_casts(expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_associative(op: &sql::BinaryOperator) -> bool {
    use sql::BinaryOperator::{And, Multiply, Or, Plus, StringConcat};
    matches!(op, And | Or | Plus | Multiply | StringConcat)
}

fn flatten_chain(expr: &mut sql::Expr) {
    let sql::Expr::BinaryOp { op: wanted, .. } = expr else {
        return;
    };
    let wanted = wanted.clone();
    if chain_length(expr, &wanted) < TERMS_MIN {
        return;
    }
    let mut rest = std::mem::replace(expr, null());
    let mut terms = vec![];
    loop {
        match rest {
            sql::Expr::BinaryOp { left, op, right } if op == wanted => {
                terms.push(*right);
                rest = *left;
            }
            first => {
                terms.push(first);
                break;
            }
        }
    }
    terms.reverse();
    let joined = balanced(terms, |left, right| sql::Expr::BinaryOp {
        left: Box::new(left),
        op: wanted.clone(),
        right: Box::new(right),
    });
    *expr = joined.unwrap_or_else(null);
}

fn null() -> sql::Expr {
    sql::Expr::Value(sql::Value::Null.with_empty_span())
}

fn chain_length(mut expr: &sql::Expr, wanted: &sql::BinaryOperator) -> usize {
    let mut length = 1;
    while let sql::Expr::BinaryOp { left, op, .. } = expr {
        if op != wanted {
            break;
        }
        length += 1;
        expr = left;
    }
    length
}

/// A chain of casts to one type as one cast.
fn flatten_casts(expr: &mut sql::Expr) {
    let sql::Expr::Cast {
        expr: inner,
        data_type,
        kind,
        ..
    } = expr
    else {
        return;
    };
    while let sql::Expr::Cast {
        expr: below,
        data_type: same,
        kind: same_kind,
        ..
    } = inner.as_mut()
    {
        if same != data_type || same_kind != kind {
            break;
        }
        let below = std::mem::replace(below.as_mut(), null());
        **inner = below;
    }
}

/// A chain of one kind of UNION.
fn flatten_unions(body: &mut sql::SetExpr) {
    let sql::SetExpr::SetOperation {
        op: sql::SetOperator::Union,
        set_quantifier,
        ..
    } = body
    else {
        return;
    };
    let wanted = *set_quantifier;
    let nothing = || {
        sql::SetExpr::Values(sql::Values {
            explicit_row: false,
            value_keyword: false,
            rows: vec![],
        })
    };
    let mut rest = std::mem::replace(body, nothing());
    let mut terms = vec![];
    loop {
        match rest {
            sql::SetExpr::SetOperation {
                left,
                op: sql::SetOperator::Union,
                set_quantifier,
                right,
            } if set_quantifier == wanted => {
                terms.push(*right);
                rest = *left;
            }
            first => {
                terms.push(first);
                break;
            }
        }
    }
    terms.reverse();
    let union = |left, right| sql::SetExpr::SetOperation {
        left: Box::new(left),
        op: sql::SetOperator::Union,
        set_quantifier: wanted,
        right: Box::new(right),
    };
    let joined = match terms.len() < TERMS_MIN {
        true => terms.into_iter().reduce(union),
        false => balanced(terms, union),
    };
    *body = joined.unwrap_or_else(nothing);
}

/// One tree of all terms, in their order.
fn balanced<T>(mut terms: Vec<T>, join: impl Fn(T, T) -> T) -> Option<T> {
    while terms.len() > 1 {
        let mut pairs = terms.into_iter();
        let mut joined = vec![];
        while let Some(left) = pairs.next() {
            joined.push(match pairs.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        terms = joined;
    }
    terms.pop()
}
