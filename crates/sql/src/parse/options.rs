//! `WITH (…)`, `FORMAT … ENCODE … (…)` and `INCLUDE …`: how a connector is configured.

use datafusion::sql::sqlparser::tokenizer::Token;
use ruslo_repr::{Error, Result};

use super::StatementParser;
use crate::ast::{Encode, Format, FormatEncode, IncludeColumn, Options};

impl StatementParser<'_> {
    /// `WITH (key = value, …)`, or no options when the word is not there.
    pub(super) fn with_options(&mut self) -> Result<Options> {
        match self.word("WITH") {
            true => self.options(),
            false => Ok(Options::default()),
        }
    }

    /// `(key = value, …)` with dotted keys and an optional comma at the end.
    fn options(&mut self) -> Result<Options> {
        let mut options = vec![];
        self.expect_token(&Token::LParen)?;
        while !self.token(&Token::RParen) {
            let key = self.option_key()?;
            self.expect_token(&Token::Eq)?;
            options.push((key, self.option_value()?));
            if !self.token(&Token::Comma) {
                self.expect_token(&Token::RParen)?;
                break;
            }
        }
        Ok(Options(options))
    }

    /// `properties.bootstrap.server`; a part in quotes keeps its case.
    fn option_key(&mut self) -> Result<String> {
        let mut key = self.option_key_part()?;
        while self.token(&Token::Period) {
            key.push('.');
            key.push_str(&self.option_key_part()?);
        }
        Ok(key)
    }

    fn option_key_part(&mut self) -> Result<String> {
        if let Token::SingleQuotedString(text) = self.peek() {
            self.next();
            return Ok(text);
        }
        self.identifier()
    }

    fn option_value(&mut self) -> Result<String> {
        let negative = self.token(&Token::Minus);
        let value = match self.peek() {
            Token::Number(digits, _) if negative => format!("-{digits}"),
            _ if negative => return Err(self.unexpected("a number")),
            Token::Number(digits, _) => digits,
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text,
            Token::DollarQuotedString(quoted) => quoted.value,
            Token::Word(word) if word.quote_style.is_some() => word.value,
            Token::Word(word) if word.value.eq_ignore_ascii_case("secret") => {
                return Err(
                    Error::unsupported("secrets in options are not supported yet")
                        .with_hint("Write the value itself; it is never shown in logs or errors."),
                );
            }
            Token::Word(word) => word.value.to_lowercase(),
            _ => return Err(self.unexpected("an option's value")),
        };
        self.next();
        Ok(value)
    }

    /// `FORMAT f ENCODE e [(…)] [KEY ENCODE e]`, None when the word FORMAT is not there.
    pub(super) fn format_encode(&mut self) -> Result<Option<FormatEncode>> {
        if self.words(&["ROW", "FORMAT"]) {
            let message = "ROW FORMAT is the old way to say FORMAT … ENCODE …";
            return Err(Error::unsupported(message).with_hint("Write FORMAT PLAIN ENCODE JSON."));
        }
        if !self.word("FORMAT") {
            return Ok(None);
        }
        let format = self.format()?;
        self.expect_word("ENCODE")?;
        let encode = self.encode()?;
        let options = match self.peek() {
            Token::LParen => self.options()?,
            _ => Options::default(),
        };
        let key_encode = match self.words(&["KEY", "ENCODE"]) {
            true => Some(self.encode()?),
            false => None,
        };
        Ok(Some(FormatEncode {
            format,
            encode,
            options,
            key_encode,
        }))
    }

    fn format(&mut self) -> Result<Format> {
        let names = [
            ("PLAIN", Format::Plain),
            ("UPSERT", Format::Upsert),
            ("DEBEZIUM_MONGO", Format::DebeziumMongo),
            ("DEBEZIUM", Format::Debezium),
            ("MAXWELL", Format::Maxwell),
            ("CANAL", Format::Canal),
            ("NATIVE", Format::Native),
            ("NONE", Format::None),
        ];
        let expected = "a format: PLAIN, UPSERT or DEBEZIUM";
        self.one_of(&names).ok_or_else(|| self.unexpected(expected))
    }

    fn encode(&mut self) -> Result<Encode> {
        let names = [
            ("JSON", Encode::Json),
            ("TEMPLATE", Encode::Template),
            ("AVRO", Encode::Avro),
            ("PROTOBUF", Encode::Protobuf),
            ("CSV", Encode::Csv),
            ("BYTES", Encode::Bytes),
            ("TEXT", Encode::Text),
            ("PARQUET", Encode::Parquet),
            ("NATIVE", Encode::Native),
            ("NONE", Encode::None),
        ];
        let expected = "an encoding: JSON, TEMPLATE, AVRO, PROTOBUF, CSV or BYTES";
        self.one_of(&names).ok_or_else(|| self.unexpected(expected))
    }

    /// Any number of `INCLUDE what [inner] [AS alias]`.
    pub(super) fn include_columns(&mut self) -> Result<Vec<IncludeColumn>> {
        let mut columns = vec![];
        while self.word("INCLUDE") {
            let what = self.identifier()?;
            let inner = match self.peek() {
                Token::SingleQuotedString(text) => {
                    self.next();
                    Some(text)
                }
                _ => None,
            };
            let alias = match self.word("AS") {
                true => Some(self.identifier()?),
                false => None,
            };
            columns.push(IncludeColumn { what, inner, alias });
        }
        Ok(columns)
    }
}
