//! Statements about the session and the catalog: SHOW, SET, EXPLAIN, BEGIN, PREPARE …

use datafusion::sql::sqlparser::tokenizer::Token;
use ruslo_repr::Result;

use super::StatementParser;
use crate::ast::{Explain, ObjectKind, Show, StatementKind};

impl StatementParser<'_> {
    /// None when the statement begins with none of these words.
    pub(super) fn session_statement(&mut self) -> Result<Option<StatementKind>> {
        let kind = if self.word("FLUSH") {
            StatementKind::Flush
        } else if self.word("SHOW") {
            StatementKind::Show(self.show()?)
        } else if self.word("DESCRIBE") || self.word("DESC") {
            StatementKind::Describe(self.name()?)
        } else if self.word("EXPLAIN") {
            StatementKind::Explain(self.explain()?)
        } else if self.word("SET") {
            self.set()?
        } else if self.word("RESET") {
            self.reset()?
        } else if self.word("PREPARE") {
            self.prepare()?
        } else if self.word("EXECUTE") {
            self.execute()?
        } else if self.word("DEALLOCATE") {
            self.word("PREPARE");
            StatementKind::Deallocate(self.all_or_identifier()?)
        } else if self.word("DISCARD") {
            self.identifier()?;
            StatementKind::Discard
        } else if self.word("SUBSCRIBE") {
            self.subscribe()?
        } else if self.word("COPY") {
            self.copy()?
        } else if self.word("USE") {
            StatementKind::Use(self.identifier()?)
        } else {
            return self.transaction();
        };
        Ok(Some(kind))
    }

    fn transaction(&mut self) -> Result<Option<StatementKind>> {
        let kind = if self.word("BEGIN") || self.words(&["START", "TRANSACTION"]) {
            StatementKind::Begin
        } else if self.word("COMMIT") || self.word("END") {
            StatementKind::Commit
        } else if self.words(&["ROLLBACK", "TO"]) || self.words(&["ROLLBACK", "WORK", "TO"]) {
            self.word("SAVEPOINT");
            StatementKind::RollbackTo(self.identifier()?)
        } else if self.word("ROLLBACK") || self.word("ABORT") {
            StatementKind::Rollback
        } else if self.word("SAVEPOINT") {
            StatementKind::Savepoint(self.identifier()?)
        } else if self.word("RELEASE") {
            self.word("SAVEPOINT");
            StatementKind::Release(self.identifier()?)
        } else {
            return Ok(None);
        };
        // Modes (ISOLATION LEVEL, READ ONLY …) ask for what every statement has anyway.
        while matches!(self.peek(), Token::Word(_) | Token::Comma) {
            self.next();
        }
        Ok(Some(kind))
    }

    /// None for ALL.
    fn all_or_identifier(&mut self) -> Result<Option<String>> {
        match self.word("ALL") {
            true => Ok(None),
            false => self.identifier().map(Some),
        }
    }

    fn show(&mut self) -> Result<Show> {
        if self.word("CREATE") {
            let kind = self.object_kind()?;
            let name = self.name()?;
            return Ok(Show::Create { kind, name });
        }
        if self.words(&["COLUMNS", "FROM"]) {
            return Ok(Show::Columns(self.name()?));
        }
        if self.words(&["INDEXES", "FROM"]) {
            return Ok(Show::Indexes(self.name()?));
        }
        if let Some(kind) = self.shown_objects() {
            return self.show_objects(kind);
        }
        if self.word("JOBS") {
            return Ok(Show::Jobs);
        }
        if self.word("PROCESSLIST") {
            return Ok(Show::Processlist);
        }
        if self.word("CLUSTER") {
            return Ok(Show::Cluster);
        }
        if self.word("ALL") || self.word("PARAMETERS") {
            return Ok(Show::All);
        }
        if self.words(&["TIME", "ZONE"]) {
            return Ok(Show::Variable("timezone".into()));
        }
        if self.words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            return Ok(Show::Variable("transaction_isolation".into()));
        }
        Ok(Show::Variable(self.setting_name()?))
    }

    fn shown_objects(&mut self) -> Option<ObjectKind> {
        if self.words(&["MATERIALIZED", "VIEWS"]) {
            return Some(ObjectKind::MaterializedView);
        }
        self.one_of(&[
            ("SOURCES", ObjectKind::Source),
            ("TABLES", ObjectKind::Table),
            ("VIEWS", ObjectKind::View),
            ("SINKS", ObjectKind::Sink),
            ("SCHEMAS", ObjectKind::Schema),
            ("DATABASES", ObjectKind::Database),
            ("CONNECTIONS", ObjectKind::Connection),
            ("SECRETS", ObjectKind::Secret),
            ("SUBSCRIPTIONS", ObjectKind::Subscription),
            ("FUNCTIONS", ObjectKind::Function),
            ("USERS", ObjectKind::User),
        ])
    }

    fn show_objects(&mut self, kind: ObjectKind) -> Result<Show> {
        let schema = match self.word("FROM") || self.word("IN") {
            true => Some(self.identifier()?),
            false => None,
        };
        let like = match self.word("LIKE") {
            true => Some(self.string()?),
            false => None,
        };
        Ok(Show::Objects { kind, schema, like })
    }

    fn explain(&mut self) -> Result<Explain> {
        let mut explain_options = vec![];
        let mut analyze = false;
        let mut verbose = false;
        if self.token(&Token::LParen) {
            while !self.token(&Token::RParen) {
                let key = self.identifier()?;
                let value = match self.peek() {
                    Token::Comma | Token::RParen => String::new(),
                    _ => self.setting_value()?,
                };
                let on = !matches!(value.as_str(), "false" | "off" | "0");
                analyze |= key == "analyze" && on;
                verbose |= key == "verbose" && on;
                explain_options.push((key, value));
                self.token(&Token::Comma);
            }
        }
        analyze |= self.word("ANALYZE");
        verbose |= self.word("VERBOSE");
        let statement = Box::new(self.statement()?);
        Ok(Explain {
            analyze,
            verbose,
            options: explain_options,
            statement,
        })
    }

    fn set(&mut self) -> Result<StatementKind> {
        let local = self.word("LOCAL");
        if !local && self.words(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"])
            || self.word("TRANSACTION")
        {
            let start = self.position();
            while matches!(self.peek(), Token::Word(_) | Token::Comma) {
                self.next();
            }
            return Ok(StatementKind::Set {
                name: "transaction".into(),
                value: Some(self.text_since(start).to_string()),
                local,
            });
        }
        self.word("SESSION");
        let name = if self.words(&["TIME", "ZONE"]) {
            "timezone".to_string()
        } else if self.word("NAMES") {
            "client_encoding".to_string()
        } else {
            let name = self.setting_name()?;
            if !self.token(&Token::Eq) {
                self.expect_word("TO")?;
            }
            name
        };
        let value = self.setting_values()?;
        Ok(StatementKind::Set { name, value, local })
    }

    /// A setting's name, which may have dots.
    fn setting_name(&mut self) -> Result<String> {
        let mut name = self.identifier()?.to_lowercase();
        while self.token(&Token::Period) {
            name.push('.');
            name.push_str(&self.identifier()?);
        }
        Ok(name)
    }

    /// Values joined by commas; None for DEFAULT.
    fn setting_values(&mut self) -> Result<Option<String>> {
        if self.word("DEFAULT") {
            return Ok(None);
        }
        let mut values = vec![self.setting_value()?];
        while self.token(&Token::Comma) {
            values.push(self.setting_value()?);
        }
        Ok(Some(values.join(", ")))
    }

    fn setting_value(&mut self) -> Result<String> {
        let sign = if self.token(&Token::Minus) { "-" } else { "" };
        let value = match self.peek() {
            Token::Number(digits, _) => digits,
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text,
            Token::Word(word) => word.value,
            _ => return Err(self.unexpected("a setting's value")),
        };
        self.next();
        Ok(format!("{sign}{value}"))
    }

    fn reset(&mut self) -> Result<StatementKind> {
        if self.word("ALL") {
            return Ok(StatementKind::Reset(None));
        }
        if self.words(&["TIME", "ZONE"]) {
            return Ok(StatementKind::Reset(Some("timezone".into())));
        }
        Ok(StatementKind::Reset(Some(self.setting_name()?)))
    }

    fn prepare(&mut self) -> Result<StatementKind> {
        let name = self.identifier()?;
        let types = self.type_list()?;
        self.expect_word("AS")?;
        let statement = Box::new(self.statement()?);
        Ok(StatementKind::Prepare {
            name,
            types,
            statement,
        })
    }

    fn execute(&mut self) -> Result<StatementKind> {
        let name = self.identifier()?;
        let mut args = vec![];
        if self.token(&Token::LParen) {
            while !self.token(&Token::RParen) {
                args.push(self.expr()?);
                if !self.token(&Token::Comma) {
                    self.expect_token(&Token::RParen)?;
                    break;
                }
            }
        }
        Ok(StatementKind::Execute { name, args })
    }
}
