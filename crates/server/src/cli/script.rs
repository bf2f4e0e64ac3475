//! Cuts a file of SQL into statements, so that an error can name the one it is in.

/// One statement of a script, without the semicolon.
#[derive(Debug, PartialEq)]
pub(super) struct Piece<'a> {
    /// The line it starts on, from 1.
    pub(super) line: usize,
    pub(super) sql: &'a str,
}

/// Splits at semicolons outside of quotes and comments; empty statements are left out.
pub(super) fn split(script: &str) -> Vec<Piece<'_>> {
    let bytes = script.as_bytes();
    let mut pieces = vec![];
    let (mut start, mut at) = (0, 0);
    // Where the statement's first character outside of comments is.
    let mut content = None;
    while at < bytes.len() {
        let next = skip_token(script, at);
        match bytes[at] {
            b';' => {
                pieces.extend(content.take().map(|first| (first, &script[start..at])));
                start = next;
            }
            _ if is_comment(bytes, at) || bytes[at].is_ascii_whitespace() => {}
            _ => content = content.or(Some(at)),
        }
        at = next;
    }
    pieces.extend(content.map(|first| (first, &script[start..])));
    let line = |offset: usize| 1 + bytes[..offset].iter().filter(|&&b| b == b'\n').count();
    let pieces = pieces.into_iter();
    pieces
        .map(|(first, sql)| Piece {
            line: line(first),
            sql: sql.trim(),
        })
        .collect()
}

/// Where blanks and comments in front of a statement end.
pub(super) fn content_start(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() && (is_comment(bytes, at) || bytes[at].is_ascii_whitespace()) {
        at = skip_token(sql, at);
    }
    at
}

fn is_comment(bytes: &[u8], at: usize) -> bool {
    bytes[at..].starts_with(b"--") || bytes[at..].starts_with(b"/*")
}

/// The end of the quoted string, comment or single character that starts at `at`.
fn skip_token(script: &str, at: usize) -> usize {
    let rest = &script[at..];
    let bytes = script.as_bytes();
    let end = |length: Option<usize>| length.map_or(script.len(), |length| at + length);
    if rest.starts_with("--") {
        return end(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return end(comment_length(rest.as_bytes()));
    }
    match bytes[at] {
        b'\'' => {
            let escapes = at > 0
                && matches!(bytes[at - 1], b'e' | b'E')
                && !(at > 1 && is_word(bytes[at - 2]));
            end(quoted_length(rest.as_bytes(), b'\'', escapes))
        }
        b'"' => end(quoted_length(rest.as_bytes(), b'"', false)),
        b'$' if at == 0 || !is_word(bytes[at - 1]) => match dollar_tag(rest) {
            Some(tag) => end(rest[tag.len()..]
                .find(tag)
                .map(|inside| inside + 2 * tag.len())),
            None => at + 1,
        },
        _ => at + rest.chars().next().map_or(1, char::len_utf8),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Comments nest, as in PostgreSQL.
fn comment_length(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn quoted_length(bytes: &[u8], quote: u8, escapes: bool) -> Option<usize> {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 1,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 1,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// `$$` or `$tag$` at the start of `rest`.
fn dollar_tag(rest: &str) -> Option<&str> {
    let length = rest[1..].find('$')?;
    let tag = &rest[1..1 + length];
    let named = tag.bytes().all(is_word) && !tag.starts_with(|c: char| c.is_ascii_digit());
    named.then(|| &rest[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statements(script: &str) -> Vec<(usize, &str)> {
        split(script)
            .into_iter()
            .map(|piece| (piece.line, piece.sql))
            .collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_count() {
        assert_eq!(
            statements("select ';' ; select 2"),
            [(1, "select ';'"), (1, "select 2")]
        );
        assert_eq!(
            statements("-- a;b\nselect 1;\n\n;select 2;"),
            [(2, "-- a;b\nselect 1"), (4, "select 2")]
        );
        assert_eq!(
            statements("select 'it''s;', E'\\';', \"a;\"\"b\" ; x"),
            [(1, "select 'it''s;', E'\\';', \"a;\"\"b\""), (1, "x")]
        );
        assert_eq!(
            statements("f $$a;$b$;$$; g $t$ $$; $t$; h"),
            [(1, "f $$a;$b$;$$"), (1, "g $t$ $$; $t$"), (1, "h")]
        );
        assert_eq!(
            statements("/* a; /* b; */ ; */ select $1;"),
            [(1, "/* a; /* b; */ ; */ select $1")]
        );
        assert_eq!(statements(" ; -- nothing\n /* ; */"), []);
    }

    proptest! {
        #[test]
        fn any_text_is_split(script in "[-/*'\"$;a é\\\\\n]{0,40}") {
            for piece in split(&script) {
                prop_assert!(script.contains(piece.sql));
            }
        }
    }
}
