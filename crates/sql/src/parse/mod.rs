//! Text to statements of RisingWave's dialect.
//!
//! sqlparser makes the tokens and reads queries, DML and expressions; the statements that are the
//! dialect's own are read here, token by token. A statement keeps its own source text.
//!
//! ```text
//!   "a; b"  ── Tokenizer ──>  tokens  ── StatementParser ──>  [Statement a, Statement b]
//!                                          │ ddl.rs, options.rs, types.rs, session.rs, output.rs
//!                                          └ sqlparser::Parser for queries and DML
//! ```

mod ddl;
pub(crate) use ddl::duplicate_column;
mod flatten;
mod options;
mod output;
mod session;
pub(crate) mod types;

#[cfg(test)]
mod tests;

use std::ops::Range;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError, ParserOptions};
use datafusion::sql::sqlparser::tokenizer::{
    Location, Token, TokenWithSpan, Tokenizer, Whitespace,
};
use ruslo_repr::{Error, ErrorKind, Result};

use crate::ast::{Name, Statement, StatementKind};
use crate::stack::{PARSER_DEPTH_MAX, check_depth, check_tokens, deep, too_complex};

static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// Splits and parses any number of statements; an empty one is `StatementKind::Empty` only when
/// there is no other.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    deep(|| parse_statements(text))
}

fn parse_statements(text: &str) -> Result<Vec<Statement>> {
    let mut parser = StatementParser::new(text)?;
    let mut statements = vec![];
    loop {
        while parser.token(&Token::SemiColon) {}
        if parser.at_end() {
            break;
        }
        statements.push(parser.statement()?);
        if !parser.at_end() && !parser.token(&Token::SemiColon) {
            return Err(parser.unexpected("end of statement"));
        }
    }
    if statements.is_empty() {
        statements.push(Statement {
            text: String::new(),
            kind: StatementKind::Empty,
        });
    }
    Ok(statements)
}

/// Parses one query, as the text of a plain view.
pub fn parse_query(text: &str) -> Result<Box<sql::Query>> {
    deep(|| {
        let mut parser = StatementParser::new(text)?;
        let query = parser.query()?;
        parser.token(&Token::SemiColon);
        match parser.at_end() {
            true => Ok(query),
            false => Err(parser.unexpected("end of query")),
        }
    })
}

/// Parses one expression, as a column's DEFAULT.
pub fn parse_expr(text: &str) -> Result<sql::Expr> {
    deep(|| {
        let mut parser = StatementParser::new(text)?;
        let expr = parser.expr()?;
        match parser.at_end() {
            true => Ok(expr),
            false => Err(parser.unexpected("end of expression")),
        }
    })
}

/// Where the comments of a text are, in bytes.
pub fn comments(text: &str) -> Result<Vec<Range<usize>>> {
    let lines = StatementParser::new(text)?;
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| Error::new(ErrorKind::Syntax, error.message))?;
    let comments = tokens.iter().filter(|token| {
        use Whitespace::{MultiLineComment, SingleLineComment};
        matches!(
            token.token,
            Token::Whitespace(SingleLineComment { .. } | MultiLineComment(_))
        )
    });
    let place =
        |token: &TokenWithSpan| lines.offset(token.span.start)..lines.offset(token.span.end);
    Ok(comments.map(place).collect())
}

/// A cursor over the tokens of a text.
pub(crate) struct StatementParser<'a> {
    text: &'a str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    parser: Parser<'a>,
    /// A `>` left over from a `>>` that closed an inner struct type.
    pending_angle: bool,
    /// The numbers in the brackets of the type read last.
    modifiers: Vec<u32>,
}

impl<'a> StatementParser<'a> {
    pub(crate) fn new(text: &'a str) -> Result<Self> {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location();
        let mut tokens = tokens.map_err(|error| {
            let message = format!("syntax error: {}", error.message);
            let location = error.location;
            let at = format!("At line {}, column {}.", location.line, location.column);
            Error::new(ErrorKind::Syntax, message).with_detail(at)
        })?;
        check_tokens(&tokens)?;
        trim_blanks(&mut tokens);
        let parser = Parser::new(&DIALECT)
            .with_recursion_limit(PARSER_DEPTH_MAX)
            .with_options(ParserOptions::new())
            .with_tokens_with_locations(tokens);
        Ok(StatementParser {
            text,
            lines,
            parser,
            pending_angle: false,
            modifiers: vec![],
        })
    }

    fn statement(&mut self) -> Result<Statement> {
        let start = self.parser.peek_token().span.start;
        let kind = self.statement_kind()?;
        let text = self.text_since(start).to_string();
        Ok(Statement { text, kind })
    }

    fn statement_kind(&mut self) -> Result<StatementKind> {
        match self.peek() {
            Token::LParen => return Ok(StatementKind::Query(self.query()?)),
            Token::Word(_) => {}
            _ => return Err(self.unexpected("a statement")),
        }
        if let Some(kind) = self.session_statement()? {
            return Ok(kind);
        }
        if self.word("CREATE") {
            return self.create();
        }
        if self.word("DROP") {
            return self.drop_objects();
        }
        if self.word("ALTER") {
            return self.alter();
        }
        if ["SELECT", "WITH", "VALUES", "TABLE"]
            .iter()
            .any(|w| self.peek_word(w))
        {
            return Ok(StatementKind::Query(self.query()?));
        }
        if ["INSERT", "UPDATE", "DELETE"]
            .iter()
            .any(|w| self.peek_word(w))
        {
            return self.dml();
        }
        Err(self.unknown_statement())
    }

    fn dml(&mut self) -> Result<StatementKind> {
        let parsed = self.parser.parse_statement();
        let mut parsed = parsed.map_err(|error| self.syntax(error))?;
        flatten::flatten(&mut parsed);
        check_depth(&parsed)?;
        match parsed {
            sql::Statement::Insert(insert) => Ok(StatementKind::Insert(Box::new(insert))),
            sql::Statement::Update(update) => Ok(StatementKind::Update(Box::new(update))),
            sql::Statement::Delete(delete) => Ok(StatementKind::Delete(Box::new(delete))),
            _ => Err(self.unexpected("INSERT, UPDATE or DELETE")),
        }
    }

    pub(crate) fn query(&mut self) -> Result<Box<sql::Query>> {
        let parsed = self.parser.parse_query();
        let mut query = parsed.map_err(|error| self.syntax(error))?;
        flatten::flatten(&mut query);
        check_depth(&query)?;
        Ok(query)
    }

    pub(crate) fn expr(&mut self) -> Result<sql::Expr> {
        let parsed = self.parser.parse_expr();
        let mut expr = parsed.map_err(|error| self.syntax(error))?;
        flatten::flatten(&mut expr);
        check_depth(&expr)?;
        Ok(expr)
    }

    /// Statements that PostgreSQL or RisingWave have and we do not, told apart from mistakes.
    fn unknown_statement(&self) -> Error {
        let known = [
            "GRANT", "REVOKE", "COMMENT", "DECLARE", "FETCH", "CLOSE", "CANCEL", "KILL", "WAIT",
            "RECOVER", "ANALYZE", "VACUUM", "MERGE", "TRUNCATE", "LOCK", "LISTEN", "NOTIFY",
            "CALL", "DO", "REPLACE", "REFRESH", "SECURITY",
        ];
        match self.peek() {
            Token::Word(word) if known.contains(&word.value.to_uppercase().as_str()) => {
                Error::unsupported(format!("{} is not supported", word.value.to_uppercase()))
            }
            _ => self.unexpected("a statement"),
        }
    }
}

/// The cursor itself.
impl<'a> StatementParser<'a> {
    pub(crate) fn peek(&self) -> Token {
        self.parser.peek_token().token
    }

    pub(crate) fn next(&mut self) -> Token {
        self.parser.next_token().token
    }

    pub(crate) fn at_end(&self) -> bool {
        self.parser.peek_token().token == Token::EOF
    }

    /// Consumes the token if it comes next.
    pub(crate) fn token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(crate) fn expect_token(&mut self, token: &Token) -> Result<()> {
        match self.token(token) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("\"{token}\""))),
        }
    }

    /// Closes `struct<…>`, where two ends together read as one token.
    pub(crate) fn expect_closing_angle(&mut self) -> Result<()> {
        if std::mem::take(&mut self.pending_angle) {
            return Ok(());
        }
        if self.token(&Token::ShiftRight) {
            self.pending_angle = true;
            return Ok(());
        }
        self.expect_token(&Token::Gt)
    }

    /// Whether a `>>` has closed the inner struct and waits to close the outer one.
    pub(crate) fn closing_outer(&self) -> bool {
        self.pending_angle
    }

    pub(crate) fn peek_word(&self, word: &str) -> bool {
        is_word(&self.peek(), word)
    }

    /// Consumes an unquoted word, in any case, if it comes next.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        let found = self.peek_word(word);
        if found {
            self.parser.advance_token();
        }
        found
    }

    /// Consumes all the words if exactly they come next.
    pub(crate) fn words(&mut self, words: &[&str]) -> bool {
        let mut ahead = words.iter().enumerate();
        let found = ahead.all(|(i, word)| is_word(&self.parser.peek_nth_token(i).token, word));
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    pub(crate) fn expect_word(&mut self, word: &str) -> Result<()> {
        match self.word(word) {
            true => Ok(()),
            false => Err(self.unexpected(word)),
        }
    }

    pub(crate) fn one_of<T: Copy>(&mut self, names: &[(&str, T)]) -> Option<T> {
        let found = names.iter().find(|(name, _)| self.word(name));
        found.map(|(_, value)| *value)
    }

    /// Any word as a name: lower case unless quoted.
    pub(crate) fn identifier(&mut self) -> Result<String> {
        match self.peek() {
            Token::Word(word) => {
                self.parser.advance_token();
                Ok(match word.quote_style {
                    Some(_) => word.value,
                    None => word.value.to_lowercase(),
                })
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// `[[database.]schema.]name`.
    pub(crate) fn name(&mut self) -> Result<Name> {
        let mut parts = vec![self.identifier()?];
        while self.token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        if parts.len() > 3 {
            return Err(self.unexpected("a name of at most three parts"));
        }
        let name = parts.pop().unwrap_or_default();
        Ok(Name {
            schema: parts.pop(),
            name,
        })
    }

    pub(crate) fn names(&mut self) -> Result<Vec<Name>> {
        let mut names = vec![self.name()?];
        while self.token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// `(a, b)`.
    pub(crate) fn identifier_list(&mut self) -> Result<Vec<String>> {
        self.expect_token(&Token::LParen)?;
        let mut names = vec![self.identifier()?];
        while self.token(&Token::Comma) {
            names.push(self.identifier()?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    pub(crate) fn string(&mut self) -> Result<String> {
        match self.peek() {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => {
                self.parser.advance_token();
                Ok(text)
            }
            _ => Err(self.unexpected("a string in quotes")),
        }
    }

    pub(crate) fn position(&self) -> Location {
        self.parser.peek_token().span.start
    }

    /// The source from `start` to the end of the last consumed token.
    pub(crate) fn text_since(&self, start: Location) -> &'a str {
        let mut last = self.parser.get_current_index();
        let is_blank = |token: &Token| matches!(token, Token::Whitespace(_) | Token::EOF);
        while last > 0 && is_blank(&self.parser.token_at(last).token) {
            last -= 1;
        }
        let end = self.parser.token_at(last).span.end;
        let (start, end) = (self.offset(start), self.offset(end));
        self.text.get(start..end.max(start)).unwrap_or(self.text)
    }

    /// The byte of a location, whose line and column count characters from one.
    fn offset(&self, location: Location) -> usize {
        let Some(&line) = self.lines.get((location.line as usize).saturating_sub(1)) else {
            return self.text.len();
        };
        let column = (location.column as usize).saturating_sub(1);
        let mut chars = self.text[line..].char_indices();
        chars
            .nth(column)
            .map_or(self.text.len(), |(at, _)| line + at)
    }

    /// PostgreSQL's `syntax error at or near`, with what would have fitted as detail.
    pub(crate) fn unexpected(&self, expected: &str) -> Error {
        self.syntax_at(&self.parser.peek_token(), &format!("Expected {expected}."))
    }

    fn syntax_at(&self, found: &TokenWithSpan, detail: &str) -> Error {
        let message = match &found.token {
            Token::EOF => "syntax error at end of input".to_string(),
            token => {
                let (start, end) = (found.span.start, found.span.end);
                let source = self.text.get(self.offset(start)..self.offset(end));
                let near = source.map_or_else(|| token.to_string(), str::to_string);
                let place = format!("line {}, column {}", start.line, start.column);
                format!("syntax error at or near \"{near}\" ({place})")
            }
        };
        Error::new(ErrorKind::Syntax, message).with_detail(detail)
    }

    /// sqlparser's error, at the token its text names.
    fn syntax(&self, error: ParserError) -> Error {
        let text = match error {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
            ParserError::RecursionLimitExceeded => return too_complex(),
        };
        let (expected, location) = split_location(&text);
        let (expected, _) = expected.split_once(", found").unwrap_or((expected, ""));
        let detail = format!("{}.", expected.replacen("Expected: ", "Expected ", 1));
        let at = location.and_then(|location| self.token_at(location));
        self.syntax_at(&at.unwrap_or_else(|| self.parser.peek_token()), &detail)
    }

    fn token_at(&self, location: Location) -> Option<TokenWithSpan> {
        let mut tokens = Tokenizer::new(&DIALECT, self.text)
            .tokenize_with_location()
            .ok()?;
        let found = tokens
            .iter()
            .position(|token| token.span.start == location)?;
        Some(tokens.swap_remove(found))
    }
}

/// Splits `… at Line: 3, Column: 7` off sqlparser's message.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text, None);
    };
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location {
            line: line.parse().ok()?,
            column: column.trim().parse().ok()?,
        })
    });
    (message, location)
}

fn is_word(token: &Token, expected: &str) -> bool {
    match token {
        Token::Word(word) => {
            word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected)
        }
        _ => false,
    }
}

/// `trim(leading from x)` with the blank that it trims said, as sqlparser wants it.
fn trim_blanks(tokens: &mut Vec<TokenWithSpan>) {
    let meant = |tokens: &[TokenWithSpan], at: usize| {
        let words = tokens[..at].iter().rev();
        let mut words = words.filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let sides = ["leading", "trailing", "both"];
        let side = words
            .next()
            .is_some_and(|t| sides.iter().any(|s| is_word(&t.token, s)));
        let bracket = words.next().is_some_and(|t| t.token == Token::LParen);
        side && bracket && words.next().is_some_and(|t| is_word(&t.token, "trim"))
    };
    let mut at = 0;
    while at < tokens.len() {
        if is_word(&tokens[at].token, "from") && meant(tokens, at) {
            let blank = Token::SingleQuotedString(" ".into());
            let span = tokens[at].span;
            tokens.insert(at, TokenWithSpan { token: blank, span });
            at += 1;
        }
        at += 1;
    }
}
