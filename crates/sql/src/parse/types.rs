//! Names of types, as DDL and casts write them, to Arrow types of `repr::schema`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::sql::sqlparser::tokenizer::Token;
use ruslo_repr::schema::{INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, list_of, timestamptz};
use ruslo_repr::{Error, ErrorKind, Result};

use super::StatementParser;
use crate::catalog::Modifier;

/// Reads a type from its text alone, as `character varying(10)` or `struct<a int>[]`.
pub fn type_from_text(text: &str) -> Result<DataType> {
    let mut parser = StatementParser::new(text)?;
    let ty = parser.parse_type()?;
    match parser.at_end() {
        true => Ok(ty),
        false => Err(undefined_type(text)),
    }
}

fn undefined_type(name: &str) -> Error {
    let message = format!("type \"{name}\" does not exist");
    Error::new(ErrorKind::UndefinedObject, message)
}

impl StatementParser<'_> {
    /// A type with its array suffixes.
    pub(crate) fn parse_type(&mut self) -> Result<DataType> {
        let mut ty = match self.word("STRUCT") {
            true => self.parse_struct()?,
            false => self.parse_named_type()?,
        };
        // What follows a half-read `>>` belongs to the outer struct.
        if self.closing_outer() {
            return Ok(ty);
        }
        if self.word("ARRAY") {
            ty = list_of(ty);
        }
        while self.token(&Token::LBracket) {
            if matches!(self.peek(), Token::Number(..)) {
                self.next();
            }
            self.expect_token(&Token::RBracket)?;
            ty = list_of(ty);
        }
        Ok(ty)
    }

    /// `struct<a int, b struct<c varchar>>`, after the word `struct`.
    fn parse_struct(&mut self) -> Result<DataType> {
        self.expect_token(&Token::Lt)?;
        let mut fields = vec![];
        loop {
            let name = self.identifier()?;
            let ty = self.parse_type()?;
            fields.push(Arc::new(Field::new(name, ty, true)));
            if !self.token(&Token::Comma) {
                break;
            }
        }
        self.expect_closing_angle()?;
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn parse_named_type(&mut self) -> Result<DataType> {
        let mut name = self.identifier()?.to_ascii_lowercase();
        // A schema before the type, as psql's catalog queries write `pg_catalog.text`.
        while self.token(&Token::Period) {
            name = self.identifier()?.to_ascii_lowercase();
        }
        let ty = match name.as_str() {
            "boolean" | "bool" => DataType::Boolean,
            "smallint" | "int2" => DataType::Int16,
            "integer" | "int" | "int4" => DataType::Int32,
            "bigint" | "int8" => DataType::Int64,
            "real" | "float4" => DataType::Float32,
            "float8" => DataType::Float64,
            "float" => return self.float_type(),
            "double" => {
                self.word("PRECISION");
                DataType::Float64
            }
            "numeric" | "decimal" | "dec" => {
                self.skip_modifiers()?;
                NUMERIC
            }
            "varchar" | "text" | "string" | "name" | "bpchar" => {
                self.skip_modifiers()?;
                DataType::Utf8
            }
            "char" | "character" => {
                self.word("VARYING");
                self.skip_modifiers()?;
                DataType::Utf8
            }
            "bytea" => DataType::Binary,
            "date" => DataType::Date32,
            "time" => {
                self.skip_modifiers()?;
                if self.time_zone_suffix()? {
                    let message = "type time with time zone is not supported";
                    return Err(Error::unsupported(message).with_hint("Use time or timestamptz."));
                }
                TIME
            }
            "timestamp" => {
                self.skip_modifiers()?;
                match self.time_zone_suffix()? {
                    true => timestamptz(),
                    false => TIMESTAMP,
                }
            }
            "timestamptz" => {
                self.skip_modifiers()?;
                timestamptz()
            }
            "interval" => {
                self.skip_modifiers()?;
                INTERVAL
            }
            "jsonb" | "json" => JSONB,
            // Object ids of the system catalogs are integers with other names.
            "oid" | "regclass" | "regtype" | "regproc" | "regnamespace" => DataType::Int32,
            _ => return Err(undefined_type(&name)),
        };
        Ok(ty)
    }

    /// `float(p)` is real up to 24 bits of precision, as SQL says.
    fn float_type(&mut self) -> Result<DataType> {
        if !self.token(&Token::LParen) {
            return Ok(DataType::Float64);
        }
        let bits = match self.next() {
            Token::Number(bits, _) => bits.parse::<u32>().unwrap_or(0),
            _ => 0,
        };
        self.expect_token(&Token::RParen)?;
        match bits {
            1..=24 => Ok(DataType::Float32),
            25..=53 => Ok(DataType::Float64),
            _ => Err(Error::new(
                ErrorKind::InvalidParameter,
                "precision for type float must be between 1 and 53 bits",
            )),
        }
    }

    /// Length, precision and scale are read over: our varchar and numeric have no limits.
    fn skip_modifiers(&mut self) -> Result<()> {
        if !self.token(&Token::LParen) {
            return Ok(());
        }
        while !self.token(&Token::RParen) {
            match self.next() {
                Token::EOF => return Err(self.unexpected("a closing parenthesis")),
                Token::Number(digits, _) => {
                    // What is no number of this size is said to be no precision below.
                    self.modifiers.push(digits.parse().unwrap_or(0));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A column's type, and what it says of lengths and digits.
    pub(crate) fn parse_column_type(&mut self) -> Result<(DataType, Option<Modifier>)> {
        self.modifiers.clear();
        let ty = self.parse_type()?;
        let numbers = std::mem::take(&mut self.modifiers);
        let invalid = |message: String| Error::new(ErrorKind::InvalidParameter, message);
        let modifier = match (&ty, &numbers[..]) {
            (DataType::Utf8, [0]) => {
                let message = "length for type varchar must be at least 1";
                return Err(invalid(message.into()));
            }
            (DataType::Utf8, [length]) => Some(Modifier::Length(*length)),
            (ty, [precision]) if *ty == NUMERIC => Some(Modifier::Precision(*precision, 0)),
            (ty, [precision, scale]) if *ty == NUMERIC => {
                Some(Modifier::Precision(*precision, *scale))
            }
            _ => None,
        };
        match modifier {
            Some(Modifier::Precision(0, _)) => Err(invalid(
                "NUMERIC precision 0 must be between 1 and 1000".into(),
            )),
            _ => Ok((ty, modifier)),
        }
    }

    /// `with time zone` (true), `without time zone` or nothing (false).
    fn time_zone_suffix(&mut self) -> Result<bool> {
        if self.words(&["WITH", "TIME", "ZONE"]) {
            return Ok(true);
        }
        self.words(&["WITHOUT", "TIME", "ZONE"]);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_contract_is_known() {
        let same = [
            ("int", "INT4"),
            ("integer", "int"),
            ("float8", "double precision"),
            ("float", "double"),
            ("real", "float(24)"),
            ("varchar(10)", "text"),
            ("character varying", "varchar"),
            ("numeric(10, 2)", "decimal"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamp(6)", "timestamp without time zone"),
            ("int[]", "integer array"),
            ("pg_catalog.text", "varchar"),
        ];
        for (a, b) in same {
            assert_eq!(
                type_from_text(a).unwrap(),
                type_from_text(b).unwrap(),
                "{a}"
            );
        }
        for name in [
            "smallint", "bigint", "date", "time", "interval", "jsonb", "bytea", "bool",
        ] {
            type_from_text(name).unwrap();
        }
    }

    #[test]
    fn structs_nest_and_close_together() {
        let ty = type_from_text("struct<a int, b struct<c varchar, d float8[]>>[]").unwrap();
        let name = ruslo_repr::schema::type_name(&ty);
        assert_eq!(
            name,
            "struct<a integer, b struct<c character varying, d double precision[]>>[]"
        );
    }

    #[test]
    fn unknown_types_are_named() {
        let error = type_from_text("frobnitz").unwrap_err();
        assert_eq!(error.message, "type \"frobnitz\" does not exist");
        assert_eq!(error.kind.sqlstate(), "42704");
    }
}
