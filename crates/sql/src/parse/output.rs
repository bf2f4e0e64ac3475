//! Statements that send rows in other ways than a query: SUBSCRIBE and COPY … TO STDOUT.

use datafusion::sql::sqlparser::tokenizer::Token;
use ruslo_repr::{Error, Result};

use super::{StatementParser, parse_query};
use crate::ast::{Statement, StatementKind, Subscribe};

impl StatementParser<'_> {
    /// `SUBSCRIBE [TO] name [WITH (SNAPSHOT [= bool], PROGRESS [= bool])]`
    pub(super) fn subscribe(&mut self) -> Result<StatementKind> {
        self.word("TO");
        if self.peek() == Token::LParen {
            let message = "SUBSCRIBE to a query is not supported";
            let hint = "CREATE MATERIALIZED VIEW of it, and SUBSCRIBE to the view.";
            return Err(Error::unsupported(message).with_hint(hint));
        }
        let mut subscribe = Subscribe {
            name: self.name()?,
            snapshot: true,
            progress: false,
        };
        if self.word("WITH") {
            self.expect_token(&Token::LParen)?;
            loop {
                let option = match self.one_of(&[("SNAPSHOT", 0), ("PROGRESS", 1)]) {
                    Some(0) => &mut subscribe.snapshot,
                    Some(_) => &mut subscribe.progress,
                    None => return Err(self.unexpected("SNAPSHOT or PROGRESS")),
                };
                *option = self.switch()?;
                if !self.token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        Ok(StatementKind::Subscribe(subscribe))
    }

    /// `[=] true`, `[=] false`, or nothing, which is true.
    fn switch(&mut self) -> Result<bool> {
        let equals = self.token(&Token::Eq);
        let names = [
            ("TRUE", true),
            ("ON", true),
            ("FALSE", false),
            ("OFF", false),
        ];
        match self.one_of(&names) {
            Some(value) => Ok(value),
            None if equals => Err(self.unexpected("true or false")),
            None => Ok(true),
        }
    }

    /// `COPY {(query) | (SUBSCRIBE …) | name [(columns)]} TO STDOUT [[WITH] (FORMAT text)]`
    pub(super) fn copy(&mut self) -> Result<StatementKind> {
        let statement = match self.token(&Token::LParen) {
            true => {
                let statement = self.statement()?;
                let kind = &statement.kind;
                if !matches!(kind, StatementKind::Query(_) | StatementKind::Subscribe(_)) {
                    return Err(Error::unsupported("COPY takes a query or SUBSCRIBE"));
                }
                self.expect_token(&Token::RParen)?;
                statement
            }
            false => self.copied_relation()?,
        };
        if self.word("FROM") {
            let hint = "INSERT the rows, or send them through Kafka.";
            return Err(Error::unsupported("COPY … FROM is not supported").with_hint(hint));
        }
        self.expect_word("TO")?;
        if !self.word("STDOUT") {
            let hint = "COPY … TO STDOUT sends the rows to the client, which can write them.";
            let error = Error::unsupported("COPY to a file or program is not supported");
            return Err(error.with_hint(hint));
        }
        let with = self.word("WITH");
        if self.token(&Token::LParen) {
            let text = self.words(&["FORMAT", "TEXT"]) && self.token(&Token::RParen);
            if !text {
                return Err(Error::unsupported("COPY takes no option but FORMAT text"));
            }
        } else if with || matches!(self.peek(), Token::Word(_)) {
            return Err(Error::unsupported("COPY takes no option but (FORMAT text)"));
        }
        Ok(StatementKind::CopyOut(Box::new(statement)))
    }

    /// A relation to be copied, as the query that reads it.
    fn copied_relation(&mut self) -> Result<Statement> {
        let start = self.position();
        self.name()?;
        let name = self.text_since(start);
        let start = self.position();
        let columns = match self.peek() {
            Token::LParen => {
                self.identifier_list()?;
                let list = self.text_since(start);
                list.trim_start_matches('(').trim_end_matches(')')
            }
            _ => "*",
        };
        let text = format!("SELECT {columns} FROM {name}");
        let kind = StatementKind::Query(parse_query(&text)?);
        Ok(Statement { text, kind })
    }
}
