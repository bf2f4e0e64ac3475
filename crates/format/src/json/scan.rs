//! JSON's grammar (RFC 8259): a scanner that walks a text without building a tree.
//!
//! It accepts exactly what the standard does: no comments, no trailing commas, no lone
//! surrogates, no leading zeros; and nesting up to [`DEPTH_MAX`]. Whatever it steps over is
//! checked as strictly as what it hands out. Strings are crossed eight bytes at a time, the rest
//! byte by byte: measured on messages of a hundred bytes this beats the libraries, which are
//! made for long texts. That it agrees with `serde_json` on what JSON is, tests fuzz.
//!
//! ```text
//!   {"user": "a@b.c", "tags": [1, 2]}
//!    ^key()  ^value() = Token { String, a@b.c }
//!                             ^value() = Token { Array, [1, 2] }, checked to its end
//! ```

use std::fmt;

/// How deep arrays and objects may nest: as `serde_json` has it, and less than `jsonb` takes.
pub(super) const DEPTH_MAX: u32 = 127;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    False,
    True,
    Number,
    /// A string without escapes: its text is its value.
    String,
    /// A string with escapes, to be read through [`unescape`].
    EscapedString,
    Array,
    Object,
}

impl Kind {
    /// With its article, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::False | Kind::True => "a boolean",
            Kind::Number => "a number",
            Kind::String | Kind::EscapedString => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        }
    }
}

/// One value of a text: what it is and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    start: usize,
    end: usize,
}

impl Token {
    /// A null that stands nowhere, for a value that is missing.
    pub(super) const NULL: Token = Token {
        kind: Kind::Null,
        start: 0,
        end: 0,
    };

    /// The value as written in `source`, the text it was scanned from: a string without its
    /// quotes, an array or object with its brackets.
    #[inline]
    pub(super) fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.start..self.end).unwrap_or_default()
    }

    /// The value as JSON: as [`Token::text`], but a string with its quotes.
    pub(super) fn json<'a>(&self, source: &'a str) -> &'a str {
        match self.kind {
            Kind::String | Kind::EscapedString => {
                let quoted = self.start.saturating_sub(1)..self.end + 1;
                source.get(quoted).unwrap_or_default()
            }
            _ => self.text(source),
        }
    }

    /// The text of any value, with a string's escapes resolved; then `scratch` holds it.
    #[inline]
    pub(super) fn string<'a>(&self, source: &'a str, scratch: &'a mut String) -> &'a str {
        let raw = self.text(source);
        if self.kind != Kind::EscapedString {
            return raw;
        }
        scratch.clear();
        unescape(raw, scratch);
        scratch
    }
}

/// Why a text is no JSON. Made without allocating: broken messages may come in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// The byte at which the text stops being JSON.
    pub(super) at: usize,
    /// The text ends here.
    pub(super) at_end: bool,
    /// What would have been right.
    pub(super) expected: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Invalid { at, expected, .. } = self;
        match self.at_end {
            true => write!(f, "the text ends at byte {at}, expected {expected}"),
            false => write!(f, "expected {expected} at byte {at}"),
        }
    }
}

impl std::error::Error for Invalid {}

/// Walks a text from left to right. After an error its position means nothing.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    #[inline]
    pub(super) fn new(text: &'a str) -> Self {
        Scanner {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// The bytes scanned so far.
    #[inline]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to the position.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The next byte after white space; None at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_whitespace();
        self.byte()
    }

    /// Steps over `expected` if the text goes on with exactly that.
    #[inline]
    pub(super) fn take(&mut self, expected: &[u8]) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Checks that nothing but white space is left.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), Invalid> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.invalid("the end of the text")),
        }
    }

    /// Steps into an object, which must be next.
    #[inline]
    pub(super) fn open_object(&mut self) -> Result<(), Invalid> {
        self.open(b'{', "'{'")
    }

    /// Steps into an array, which must be next.
    #[inline]
    pub(super) fn open_array(&mut self) -> Result<(), Invalid> {
        self.open(b'[', "'['")
    }

    /// Goes to the next member's key in the innermost open object; false at its closing brace.
    #[inline]
    pub(super) fn next_member(&mut self, first: bool) -> Result<bool, Invalid> {
        self.next_item(first, b'}', "',' or '}'")
    }

    /// Goes to the next value in the innermost open array; false at its closing bracket.
    #[inline]
    pub(super) fn next_element(&mut self, first: bool) -> Result<bool, Invalid> {
        self.next_item(first, b']', "',' or ']'")
    }

    /// Reads a member's key, the colon, and the white space behind it.
    pub(super) fn key(&mut self) -> Result<Token, Invalid> {
        if self.byte() != Some(b'"') {
            return Err(self.invalid("a string as key"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.invalid("':'"));
        }
        self.at += 1;
        self.skip_whitespace();
        Ok(key)
    }

    /// Reads a value of any kind, checking it to its end.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Token, Invalid> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.container(Kind::Object),
            Some(b'[') => self.container(Kind::Array),
            _ => self.scalar(),
        }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    #[cold]
    fn invalid(&self, expected: &'static str) -> Invalid {
        Invalid {
            at: self.at,
            at_end: self.at >= self.text.len(),
            expected,
        }
    }

    #[inline]
    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    #[inline]
    fn open(&mut self, bracket: u8, expected: &'static str) -> Result<(), Invalid> {
        if self.peek() != Some(bracket) {
            return Err(self.invalid(expected));
        }
        if self.depth == DEPTH_MAX {
            return Err(self.invalid("no deeper nesting"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn next_item(
        &mut self,
        first: bool,
        closing: u8,
        expected: &'static str,
    ) -> Result<bool, Invalid> {
        match self.peek() {
            Some(byte) if byte == closing => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                self.skip_whitespace();
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.invalid(expected)),
        }
    }

    /// Checks a whole array or object, without recursion: a text chooses how deep it nests.
    fn container(&mut self, kind: Kind) -> Result<Token, Invalid> {
        let (start, outer_depth) = (self.at, self.depth);
        // One bit per bracket open in here, the innermost lowest: set for an object.
        let mut objects = 0u128;
        loop {
            let opened = match self.byte() {
                Some(b'{') => {
                    self.open_object()?;
                    objects = objects << 1 | 1;
                    true
                }
                Some(b'[') => {
                    self.open_array()?;
                    objects <<= 1;
                    true
                }
                Some(b'"') => self.string().map(|_| false)?,
                _ => self.scalar().map(|_| false)?,
            };
            let mut first = opened;
            loop {
                let in_object = objects & 1 == 1;
                let more = match in_object {
                    true => self.next_member(first)?,
                    false => self.next_element(first)?,
                };
                if more {
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                if self.depth == outer_depth {
                    return Ok(self.token(kind, start));
                }
                objects >>= 1;
                first = false;
            }
        }
    }

    #[inline]
    fn token(&self, kind: Kind, start: usize) -> Token {
        Token {
            kind,
            start,
            end: self.at,
        }
    }

    fn scalar(&mut self) -> Result<Token, Invalid> {
        let start = self.at;
        let literal = match self.byte() {
            Some(b'-' | b'0'..=b'9') => return self.number(),
            Some(b't') => (Kind::True, "true"),
            Some(b'f') => (Kind::False, "false"),
            Some(b'n') => (Kind::Null, "null"),
            _ => return Err(self.invalid("a value")),
        };
        match self.take(literal.1.as_bytes()) {
            true => Ok(self.token(literal.0, start)),
            false => Err(self.invalid("a value")),
        }
    }

    fn number(&mut self) -> Result<Token, Invalid> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.token(Kind::Number, start))
    }

    /// Steps over one or more digits.
    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        match self.at > start {
            true => Ok(()),
            false => Err(self.invalid("a digit")),
        }
    }

    /// Reads a string, whose opening quote is the next byte.
    #[inline]
    fn string(&mut self) -> Result<Token, Invalid> {
        let start = self.at + 1;
        let mut kind = Kind::String;
        self.at = start;
        loop {
            self.skip_plain();
            match self.byte() {
                Some(b'"') => {
                    let token = self.token(kind, start);
                    self.at += 1;
                    return Ok(token);
                }
                Some(b'\\') => {
                    self.escape()?;
                    kind = Kind::EscapedString;
                }
                Some(_) => return Err(self.invalid("no control character in a string")),
                None => return Err(self.invalid("'\"'")),
            }
        }
    }

    /// Goes on to the next quote, backslash or control character, or to the end of the text.
    #[inline]
    fn skip_plain(&mut self) {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let special = special_bytes(u64::from_le_bytes(*word));
            if special != 0 {
                self.at = at + special.trailing_zeros() as usize / 8;
                return;
            }
            at += 8;
        }
        while bytes
            .get(at)
            .is_some_and(|&b| b >= 0x20 && b != b'"' && b != b'\\')
        {
            at += 1;
        }
        self.at = at;
    }

    #[cold]
    fn escape(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                let Some(unit) = hex4(self.rest()) else {
                    return Err(self.invalid("four hexadecimal digits"));
                };
                self.at += 4;
                match unit {
                    0xD800..0xDC00 => self.low_surrogate(),
                    0xDC00..0xE000 => Err(self.invalid("a high surrogate before a low one")),
                    _ => Ok(()),
                }
            }
            _ => Err(self.invalid("an escape")),
        }
    }

    fn low_surrogate(&mut self) -> Result<(), Invalid> {
        let unit = self.rest().strip_prefix(b"\\u").and_then(hex4);
        match unit {
            Some(0xDC00..0xE000) => {
                self.at += 6;
                Ok(())
            }
            _ => Err(self.invalid("a low surrogate after a high one")),
        }
    }
}

/// The highest bit of each byte that is a quote, a backslash or a control character; bytes above
/// the lowest such one may be marked falsely.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
    let quotes = word ^ QUOTES;
    let backslashes = word ^ BACKSLASHES;
    let quotes = quotes.wrapping_sub(ONES) & !quotes;
    let backslashes = backslashes.wrapping_sub(ONES) & !backslashes;
    let controls = word.wrapping_sub(SPACES) & !word;
    (quotes | backslashes | controls) & HIGHS
}

/// The number that the first four bytes write in hexadecimal.
fn hex4(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.first_chunk::<4>()?;
    digits.iter().try_fold(0u16, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit as u16)
    })
}

/// Appends the value of a string to `out`; `raw` is the inside of a string that was scanned.
pub(super) fn unescape(raw: &str, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (value, len) = escaped_char(&rest.as_bytes()[at..]);
        out.push(value);
        rest = rest.get(at + len..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// The character that an escape stands for, and the escape's length.
fn escaped_char(escape: &[u8]) -> (char, usize) {
    let value = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let high = escape.get(2..).and_then(hex4).map(u32::from);
            let low = escape.get(8..).and_then(hex4).map(u32::from);
            return match (high, low) {
                (Some(high @ 0xD800..0xDC00), Some(low @ 0xDC00..0xE000)) => {
                    let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    (
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                        12,
                    )
                }
                (Some(code), _) => (
                    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                    6,
                ),
                (None, _) => (char::REPLACEMENT_CHARACTER, 2),
            };
        }
        Some(&other) => char::from(other),
        None => return ('\\', 1),
    };
    (value, 2)
}

#[cfg(test)]
mod tests;
