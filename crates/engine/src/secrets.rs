//! Blots secrets out of statements before they are stored or shown.
//!
//! Option values are known to be secret by their names. Comments may hold anything (an old
//! password, an option that is commented out), so nothing of them stays.

use ruslo_sql::ast::Options;

const BLOT: &str = "********";

/// `text` with the value of every secret option replaced; URLs keep all but their password.
pub(crate) fn blot(text: &str, options: &Options) -> String {
    let mut text = blot_comments(text);
    for (key, value) in options.iter() {
        if value.is_empty() {
            continue;
        }
        let shown = match is_secret(key) {
            true => BLOT.to_string(),
            false => blot_urls(value),
        };
        if shown != *value {
            let quoted = format!("'{}'", value.replace('\'', "''"));
            text = match text.contains(&quoted) {
                true => text.replace(&quoted, &format!("'{shown}'")),
                // Written in another way: better lose the words around it than show it.
                false => text.replace(value.as_str(), BLOT),
            };
        }
    }
    text
}

fn blot_comments(text: &str) -> String {
    // A statement that was parsed can be parsed again.
    let Ok(comments) = ruslo_sql::comments(text) else {
        return BLOT.to_string();
    };
    let mut shown = String::with_capacity(text.len());
    let mut rest = 0;
    for comment in comments {
        shown.push_str(&text[rest..comment.start]);
        let words = &text[comment.clone()];
        shown.push_str(&match words.starts_with("/*") {
            true => format!("/* {BLOT} */"),
            false if words.ends_with('\n') => format!("-- {BLOT}\n"),
            false => format!("-- {BLOT}"),
        });
        rest = comment.end;
    }
    shown.push_str(&text[rest..]);
    shown
}

fn is_secret(key: &str) -> bool {
    const MARKS: [&str; 6] = [
        "password",
        "secret",
        "key.pem",
        "jaas",
        "token",
        "oauthbearer.config",
    ];
    let key = key.to_ascii_lowercase();
    MARKS.iter().any(|mark| key.contains(mark))
}

/// Replaces the password of every `scheme://user:password@host` in `value`.
fn blot_urls(value: &str) -> String {
    let mut shown = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        shown.push_str(before);
        let authority_end = after.find(['/', '"', ',', ' ', '?']).unwrap_or(after.len());
        // A password may itself hold an '@' or a '/': the last '@' before a quote or comma rules.
        let url_end = after.find(['"', ',', ' ']).unwrap_or(after.len());
        let at = after[..authority_end]
            .rfind('@')
            .or_else(|| after[..url_end].rfind('@'));
        rest = match at {
            Some(at) => {
                let user = after[..at].split(':').next().unwrap_or_default();
                shown.push_str(user);
                if after[..at].contains(':') {
                    shown.push(':');
                    shown.push_str(BLOT);
                }
                &after[at..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blotted(text: &str, options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        blot(text, &Options(options.collect()))
    }

    #[test]
    fn passwords_go_and_the_rest_stays() {
        let text = "WITH (properties.sasl.username='u', properties.sasl.password='it''s')";
        let options = [
            ("properties.sasl.username", "u"),
            ("properties.sasl.password", "it's"),
        ];
        assert_eq!(
            blotted(text, &options),
            "WITH (properties.sasl.username='u', properties.sasl.password='********')"
        );
    }

    #[test]
    fn comments_go_and_what_only_looks_like_one_stays() {
        let text = "CREATE SOURCE s (a int) -- hunter2, an é\n\
             WITH (topic='-- not /* one */', /* hunter2 /* and\n more */ */ x='é') -- hunter2";
        assert_eq!(
            blotted(text, &[("topic", "-- not /* one */"), ("x", "é")]),
            "CREATE SOURCE s (a int) -- ********\n\
             WITH (topic='-- not /* one */', /* ******** */ x='é') -- ********"
        );
    }

    #[test]
    fn urls_lose_their_password_only() {
        let text = "WITH (redis.url= 'redis://me:pw@host:6379/0', topic='pw')";
        let options = [("redis.url", "redis://me:pw@host:6379/0"), ("topic", "pw")];
        assert_eq!(
            blotted(text, &options),
            "WITH (redis.url= 'redis://me:********@host:6379/0', topic='pw')"
        );
        let cluster = r#"["redis://a:b@h1:1","rediss://c:d/e@h2:2"]"#;
        assert_eq!(
            blot_urls(cluster),
            r#"["redis://a:********@h1:1","rediss://c:********@h2:2"]"#
        );
        assert_eq!(blot_urls("redis://host:1/2"), "redis://host:1/2");
    }
}
