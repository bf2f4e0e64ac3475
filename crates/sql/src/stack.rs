//! Room for deep statements: parser, planner, evaluation and `drop` all walk trees by recursion.
//!
//! ```text
//!   text ── by its tokens: could it be far too deep? ──> parse, flatten ── is it? ──> plan …
//!           54001, before anything recurses                               54001
//! ```
//!
//! Chains of thousands of terms are made flat once they are parsed, so what is still deep is
//! nested by hand, or a program's work.
//!
//! What passes both checks runs on a stack that is large enough for it: [`deep`] for a call,
//! [`OnDeepStack`] for a future, [`Deep`] for what is dropped anywhere.

use std::mem::ManuallyDrop;
use std::ops::{ControlFlow, Deref};
use std::pin::Pin;
use std::task::{Context, Poll};

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use ruslo_repr::{Error, ErrorKind, Result};

/// Address space only: pages are taken as they are touched, and given back at the end.
const STACK_BYTES: usize = 256 << 20;
/// What is enough for the deepest statement there may be, also unoptimised.
const ENOUGH_BYTES: usize = 96 << 20;
/// Nested expressions and queries of a statement. Binding takes the time of its third power.
const DEPTH_MAX: usize = 250;
/// Queries in one chain of set operations and joins.
const QUERIES_MAX: usize = 1500;
/// Tokens that may stand in one chain: a level takes at least two.
const CHAIN_TOKENS_MAX: usize = 20_000;
/// What the parser may recurse by itself: parentheses, NOT, subqueries.
pub(crate) const PARSER_DEPTH_MAX: usize = 400;

/// Calls `work` with room for the deepest statement there may be.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(ENOUGH_BYTES, STACK_BYTES, work)
}

/// A future whose every poll, and end, has room for the deepest statement there may be.
pub struct OnDeepStack<F>(Deep<Pin<Box<F>>>);

impl<F> OnDeepStack<F> {
    pub fn new(future: F) -> Self {
        OnDeepStack(Deep::new(Box::pin(future)))
    }
}

impl<F: Future> Future for OnDeepStack<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let future: &mut Pin<Box<F>> = &mut self.get_mut().0.0;
        deep(|| future.as_mut().poll(context))
    }
}

/// A value that may hold a deep tree, dropped with room for it.
#[derive(Debug)]
pub struct Deep<T>(ManuallyDrop<T>);

impl<T> Deep<T> {
    pub fn new(value: T) -> Self {
        Deep(ManuallyDrop::new(value))
    }
}

impl<T> Deref for Deep<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Deep<T> {
    fn drop(&mut self) {
        // SAFETY: the value is not touched again: this is the only place that drops it, once.
        deep(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

pub(crate) fn too_complex() -> Error {
    Error::new(ErrorKind::TooComplex, "the statement is too complex")
        .with_detail("Its expressions or subqueries are nested too deeply.")
        .with_hint("Write long chains as lists: x IN (…), = ANY (ARRAY[…]), a table and a join.")
}

/// Refuses what could be so deep that parsing it would not end well. What stands between commas
/// of one pair of brackets is a chain; chains of brackets inside brackets add up.
pub(crate) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    let (mut open, mut sum) = (vec![0_usize], 0_usize);
    for token in tokens {
        let last = open.len() - 1;
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                open[last] += 1;
                sum += 1;
                open.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace if last > 0 => {
                sum -= open.pop().unwrap_or_default();
            }
            Token::Comma => sum -= std::mem::take(&mut open[last]),
            Token::SemiColon => (open, sum) = (vec![0], 0),
            _ => {
                open[last] += 1;
                sum += 1;
            }
        }
        if sum > CHAIN_TOKENS_MAX {
            return Err(too_complex());
        }
    }
    check_set_operations(tokens)
}

/// A chain of UNIONs goes on over the commas of its SELECTs.
fn check_set_operations(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut count = 0;
    for token in tokens {
        match &token.token {
            Token::SemiColon => count = 0,
            Token::Word(word) if word.quote_style.is_none() => {
                let words = ["union", "intersect", "except", "join"];
                count += usize::from(words.iter().any(|w| word.value.eq_ignore_ascii_case(w)));
            }
            _ => {}
        }
        if count > QUERIES_MAX {
            return Err(too_complex());
        }
    }
    Ok(())
}

/// Refuses what is deeper than all later steps have room for.
pub(crate) fn check_depth(tree: &impl Visit) -> Result<()> {
    match tree.visit(&mut DepthCheck { depth: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(too_complex()),
    }
}

struct DepthCheck {
    depth: usize,
}

impl DepthCheck {
    fn enter(&mut self) -> ControlFlow<()> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn leave(&mut self) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl Visitor for DepthCheck {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &sql::Query) -> ControlFlow<()> {
        self.enter()
    }

    fn post_visit_query(&mut self, _query: &sql::Query) -> ControlFlow<()> {
        self.leave()
    }

    fn pre_visit_expr(&mut self, _expr: &sql::Expr) -> ControlFlow<()> {
        self.enter()
    }

    fn post_visit_expr(&mut self, _expr: &sql::Expr) -> ControlFlow<()> {
        self.leave()
    }
}
