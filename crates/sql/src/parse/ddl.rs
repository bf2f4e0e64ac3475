//! CREATE, DROP and ALTER.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::tokenizer::Token;
use ruslo_repr::{Error, ErrorKind, Result};

use super::StatementParser;
use crate::ast::{
    ColumnDef, CreateSink, CreateSource, CreateTable, CreateView, Name, ObjectKind, OnConflict,
    SinkFrom, StatementKind,
};

/// The columns and constraints between the parentheses of CREATE TABLE.
#[derive(Default)]
struct Columns {
    columns: Vec<ColumnDef>,
    primary_key: Vec<String>,
}

impl Columns {
    fn key_positions(&self) -> Result<Vec<usize>> {
        let position = |name: &String| {
            let found = self.columns.iter().position(|c| &c.name == name);
            found.ok_or_else(|| {
                let message = format!("column \"{name}\" named in key does not exist");
                Error::new(ErrorKind::UndefinedColumn, message)
            })
        };
        self.primary_key.iter().map(position).collect()
    }

    fn push(&mut self, column: ColumnDef) -> Result<()> {
        if self.columns.iter().any(|c| c.name == column.name) {
            return Err(duplicate_column(&column.name));
        }
        self.columns.push(column);
        Ok(())
    }
}

/// PostgreSQL's error for a column name that stands twice.
pub(crate) fn duplicate_column(name: &str) -> Error {
    let message = format!("column \"{name}\" specified more than once");
    Error::new(ErrorKind::DuplicateColumn, message)
}

impl StatementParser<'_> {
    pub(super) fn create(&mut self) -> Result<StatementKind> {
        let or_replace = self.words(&["OR", "REPLACE"]);
        if self.words(&["MATERIALIZED", "VIEW"]) {
            return Ok(StatementKind::CreateMaterializedView(
                self.create_view(or_replace)?,
            ));
        }
        if self.word("VIEW") {
            return Ok(StatementKind::CreateView(self.create_view(or_replace)?));
        }
        if or_replace {
            return Err(self.unexpected("VIEW or MATERIALIZED VIEW"));
        }
        if self.word("SOURCE") {
            return self.create_source();
        }
        if self.word("TABLE") {
            return self.create_table();
        }
        if self.word("SINK") {
            return self.create_sink();
        }
        if self.word("SCHEMA") {
            let if_not_exists = self.if_not_exists();
            let name = self.identifier()?;
            return Ok(StatementKind::CreateSchema {
                if_not_exists,
                name,
            });
        }
        let later = [
            "INDEX",
            "UNIQUE",
            "SUBSCRIPTION",
            "CONNECTION",
            "SECRET",
            "FUNCTION",
            "AGGREGATE",
            "DATABASE",
            "USER",
            "ROLE",
            "TEMPORARY",
            "TEMP",
            "TYPE",
            "SEQUENCE",
        ];
        match later.iter().find(|word| self.peek_word(word)) {
            Some(word) => Err(Error::unsupported(format!(
                "CREATE {word} is not supported yet"
            ))),
            None => Err(self.unexpected("SOURCE, TABLE, MATERIALIZED VIEW, VIEW or SINK")),
        }
    }

    fn if_not_exists(&mut self) -> bool {
        self.words(&["IF", "NOT", "EXISTS"])
    }

    fn create_source(&mut self) -> Result<StatementKind> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = self.columns()?;
        let include = self.include_columns()?;
        let options = self.with_options()?;
        let format = self.format_encode()?;
        Ok(StatementKind::CreateSource(CreateSource {
            if_not_exists,
            name,
            primary_key: columns.key_positions()?,
            columns: columns.columns,
            include,
            options,
            format,
        }))
    }

    fn create_table(&mut self) -> Result<StatementKind> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = self.columns()?;
        let append_only = self.words(&["APPEND", "ONLY"]);
        let on_conflict = self.on_conflict()?;
        let include = self.include_columns()?;
        let options = self.with_options()?;
        let format = self.format_encode()?;
        let query = match self.word("AS") {
            true => Some(self.query()?),
            false => None,
        };
        if columns.columns.is_empty() && query.is_none() && format.is_none() {
            return Err(self.unexpected("the table's columns"));
        }
        Ok(StatementKind::CreateTable(CreateTable {
            if_not_exists,
            name,
            primary_key: columns.key_positions()?,
            columns: columns.columns,
            append_only,
            on_conflict,
            include,
            options,
            format,
            query,
        }))
    }

    fn on_conflict(&mut self) -> Result<Option<OnConflict>> {
        if !self.words(&["ON", "CONFLICT"]) {
            return Ok(None);
        }
        if self.word("OVERWRITE") || self.words(&["DO", "UPDATE", "FULL"]) {
            return Ok(Some(OnConflict::Overwrite));
        }
        if self.words(&["DO", "NOTHING"]) || self.word("IGNORE") {
            return Ok(Some(OnConflict::DoNothing));
        }
        if self.words(&["DO", "UPDATE", "IF", "NOT", "NULL"]) {
            return Ok(Some(OnConflict::UpdateIfNotNull));
        }
        Err(self.unexpected("OVERWRITE, DO NOTHING or DO UPDATE IF NOT NULL"))
    }

    /// `(column type constraint…, PRIMARY KEY (…), …)`; nothing at all is allowed too.
    fn columns(&mut self) -> Result<Columns> {
        let mut columns = Columns::default();
        if !self.token(&Token::LParen) {
            return Ok(columns);
        }
        while !self.token(&Token::RParen) {
            self.column_or_constraint(&mut columns)?;
            if !self.token(&Token::Comma) {
                self.expect_token(&Token::RParen)?;
                break;
            }
        }
        Ok(columns)
    }

    fn column_or_constraint(&mut self, columns: &mut Columns) -> Result<()> {
        if self.words(&["CONSTRAINT"]) {
            self.identifier()?;
        }
        if self.words(&["PRIMARY", "KEY"]) {
            return self.set_primary_key(columns);
        }
        if self.words(&["WATERMARK", "FOR"]) {
            return Err(Error::unsupported("watermarks are not supported yet"));
        }
        if self.token(&Token::Mul) {
            let message = "columns from a schema registry (*) are not supported yet";
            return Err(Error::unsupported(message).with_hint("Name the columns and their types."));
        }
        let name = self.identifier()?;
        let (ty, modifier) = self.parse_column_type()?;
        let mut column = ColumnDef {
            name,
            ty,
            modifier,
            not_null: false,
            default: None,
        };
        while self.column_constraint(&mut column, columns)? {}
        columns.push(column)
    }

    fn set_primary_key(&mut self, columns: &mut Columns) -> Result<()> {
        if !columns.primary_key.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidTable,
                "multiple primary keys are not allowed",
            ));
        }
        columns.primary_key = self.identifier_list()?;
        Ok(())
    }

    fn column_constraint(&mut self, column: &mut ColumnDef, all: &mut Columns) -> Result<bool> {
        if self.words(&["PRIMARY", "KEY"]) {
            if !all.primary_key.is_empty() {
                let message = "multiple primary keys are not allowed";
                return Err(Error::new(ErrorKind::InvalidTable, message));
            }
            all.primary_key = vec![column.name.clone()];
        } else if self.words(&["NOT", "NULL"]) {
            column.not_null = true;
        } else if self.word("DEFAULT") {
            column.default = Some(self.expr()?);
        } else if self.word("AS") || self.words(&["GENERATED", "ALWAYS"]) {
            return Err(
                Error::unsupported("generated columns are not supported yet")
                    .with_hint("Compute the column in a materialized view."),
            );
        } else if !self.word("NULL") {
            return Ok(false);
        }
        Ok(true)
    }

    fn create_view(&mut self, or_replace: bool) -> Result<CreateView> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = match self.peek() {
            Token::LParen => self.identifier_list()?,
            _ => vec![],
        };
        let options = self.with_options()?;
        self.expect_word("AS")?;
        let start = self.position();
        let query = self.query()?;
        let query_text = self.text_since(start).to_string();
        let emit_on_window_close = self.words(&["EMIT", "ON", "WINDOW", "CLOSE"]);
        Ok(CreateView {
            if_not_exists,
            or_replace,
            name,
            columns,
            query,
            query_text,
            options,
            emit_on_window_close,
        })
    }

    fn create_sink(&mut self) -> Result<StatementKind> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        if self.word("INTO") {
            return Err(Error::unsupported(
                "CREATE SINK INTO a table is not supported yet",
            ));
        }
        let from = match self.word("FROM") {
            true => SinkFrom::Relation(self.name()?),
            false => {
                self.expect_word("AS")?;
                SinkFrom::Query(self.query()?)
            }
        };
        let options = self.with_options()?;
        let format = self.format_encode()?;
        Ok(StatementKind::CreateSink(CreateSink {
            if_not_exists,
            name,
            from,
            options,
            format,
        }))
    }

    pub(super) fn object_kind(&mut self) -> Result<ObjectKind> {
        if self.words(&["MATERIALIZED", "VIEW"]) {
            return Ok(ObjectKind::MaterializedView);
        }
        let kinds = [
            ("SOURCE", ObjectKind::Source),
            ("TABLE", ObjectKind::Table),
            ("VIEW", ObjectKind::View),
            ("SINK", ObjectKind::Sink),
            ("INDEX", ObjectKind::Index),
            ("SCHEMA", ObjectKind::Schema),
            ("DATABASE", ObjectKind::Database),
            ("CONNECTION", ObjectKind::Connection),
            ("SECRET", ObjectKind::Secret),
            ("SUBSCRIPTION", ObjectKind::Subscription),
            ("FUNCTION", ObjectKind::Function),
            ("USER", ObjectKind::User),
        ];
        let found = self.one_of(&kinds);
        found.ok_or_else(|| self.unexpected("SOURCE, TABLE, MATERIALIZED VIEW, VIEW or SINK"))
    }

    pub(super) fn drop_objects(&mut self) -> Result<StatementKind> {
        let kind = self.object_kind()?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let names: Vec<Name> = self.names()?;
        let cascade = self.word("CASCADE");
        if !cascade {
            self.word("RESTRICT");
        }
        Ok(StatementKind::Drop {
            kind,
            names,
            if_exists,
            cascade,
        })
    }

    pub(super) fn alter(&mut self) -> Result<StatementKind> {
        let kind = self.object_kind()?;
        let name = self.name()?;
        if self.words(&["RENAME", "TO"]) {
            let to = self.identifier()?;
            return Ok(StatementKind::Rename { kind, name, to });
        }
        let noun = kind.noun().to_uppercase();
        Err(Error::unsupported(format!(
            "of ALTER {noun} only RENAME TO is supported yet"
        )))
    }

    /// A list of types in parentheses, as PREPARE has it; nothing at all gives none.
    pub(super) fn type_list(&mut self) -> Result<Vec<DataType>> {
        let mut types = vec![];
        if !self.token(&Token::LParen) {
            return Ok(types);
        }
        loop {
            types.push(self.parse_type()?);
            if !self.token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(types)
    }
}
