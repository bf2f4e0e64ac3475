//! PostgreSQL's patterns for dates and times: `to_char` prints by them, `to_timestamp` and
//! `to_date` read by them.

mod parse;
mod print;

pub(super) use parse::parse;
pub(super) use print::{print, print_interval};

/// What a pattern asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Year(usize),
    IsoYear(usize),
    YearComma,
    Century,
    Quarter,
    MonthNumber,
    MonthName,
    MonthShort,
    MonthRoman,
    IsoWeek,
    WeekOfYear,
    WeekOfMonth,
    DayOfYear,
    IsoDayOfYear,
    DayOfMonth,
    DayName,
    DayShort,
    DayOfWeek,
    IsoDayOfWeek,
    Julian,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    /// So many digits of the fraction of a second.
    Fraction(usize),
    Meridiem {
        dots: bool,
    },
    Era {
        dots: bool,
    },
    ZoneName,
    ZoneOffset,
    ZoneHour,
    ZoneMinute,
}

/// How letters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Upper,
    Lower,
    Capital,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Key {
        key: Key,
        case: Case,
        fill: bool,
        ordinal: Option<Case>,
    },
    Text(String),
}

/// Longest first, where one is the start of another.
const KEYS: [(&str, Key); 53] = [
    ("Y,YYY", Key::YearComma),
    ("YYYY", Key::Year(4)),
    ("IYYY", Key::IsoYear(4)),
    ("YYY", Key::Year(3)),
    ("IYY", Key::IsoYear(3)),
    ("YY", Key::Year(2)),
    ("IY", Key::IsoYear(2)),
    ("Y", Key::Year(1)),
    ("SSSSS", Key::SecondOfDay),
    ("SSSS", Key::SecondOfDay),
    ("SS", Key::Second),
    ("MONTH", Key::MonthName),
    ("MON", Key::MonthShort),
    ("MM", Key::MonthNumber),
    ("MI", Key::Minute),
    ("MS", Key::Fraction(3)),
    ("US", Key::Fraction(6)),
    ("FF1", Key::Fraction(1)),
    ("FF2", Key::Fraction(2)),
    ("FF3", Key::Fraction(3)),
    ("FF4", Key::Fraction(4)),
    ("FF5", Key::Fraction(5)),
    ("FF6", Key::Fraction(6)),
    ("HH24", Key::Hour24),
    ("HH12", Key::Hour12),
    ("HH", Key::Hour12),
    ("IDDD", Key::IsoDayOfYear),
    ("DDD", Key::DayOfYear),
    ("DD", Key::DayOfMonth),
    ("DAY", Key::DayName),
    ("DY", Key::DayShort),
    ("ID", Key::IsoDayOfWeek),
    ("IW", Key::IsoWeek),
    ("I", Key::IsoYear(1)),
    ("D", Key::DayOfWeek),
    ("WW", Key::WeekOfYear),
    ("W", Key::WeekOfMonth),
    ("CC", Key::Century),
    ("J", Key::Julian),
    ("Q", Key::Quarter),
    ("RM", Key::MonthRoman),
    ("A.M.", Key::Meridiem { dots: true }),
    ("P.M.", Key::Meridiem { dots: true }),
    ("AM", Key::Meridiem { dots: false }),
    ("PM", Key::Meridiem { dots: false }),
    ("TZH", Key::ZoneHour),
    ("TZM", Key::ZoneMinute),
    ("TZ", Key::ZoneName),
    ("OF", Key::ZoneOffset),
    ("AD", Key::Era { dots: false }),
    ("BC", Key::Era { dots: false }),
    ("A.D.", Key::Era { dots: true }),
    ("B.C.", Key::Era { dots: true }),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const ROMAN: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];

/// Cuts a pattern into keys and text; in double quotes everything is text.
fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = vec![];
    let mut rest = pattern;
    let push_text = |tokens: &mut Vec<Token>, c: char| match tokens.last_mut() {
        Some(Token::Text(text)) => text.push(c),
        _ => tokens.push(Token::Text(c.to_string())),
    };
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut quoted = rest[1..].chars();
            while let Some(c) = quoted.next() {
                match c {
                    '"' => break,
                    '\\' => quoted
                        .next()
                        .into_iter()
                        .for_each(|c| push_text(&mut tokens, c)),
                    c => push_text(&mut tokens, c),
                }
            }
            rest = quoted.as_str();
            continue;
        }
        match take_key(rest) {
            Some((token, tail)) => {
                tokens.push(token);
                rest = tail;
            }
            None => {
                let escaped = first == '\\' && rest[1..].starts_with('"');
                rest = &rest[first.len_utf8()..];
                push_text(&mut tokens, if escaped { '"' } else { first });
                rest = if escaped { &rest[1..] } else { rest };
            }
        }
    }
    tokens
}

fn take_key(pattern: &str) -> Option<(Token, &str)> {
    let starts = |text: &str, prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    // FM wants no filling; neither has TM, which asks for names in the session's language.
    let (fill, text) = match starts(pattern, "FM") || starts(pattern, "TM") {
        true => (false, &pattern[2..]),
        false => (true, pattern),
    };
    let known = KEYS.iter().find(|(name, _)| starts(text, name));
    let Some((name, key)) = known else {
        // FM in front of nothing known is dropped.
        return (!fill).then(|| (Token::Text(String::new()), text));
    };
    let (written, mut rest) = text.split_at(name.len());
    let mut letters = written.chars().filter(|c| c.is_ascii_alphabetic());
    let case = match (letters.next(), letters.next()) {
        (Some(a), _) if a.is_ascii_lowercase() => Case::Lower,
        (Some(_), Some(b)) if b.is_ascii_lowercase() => Case::Capital,
        _ => Case::Upper,
    };
    let ordinal = match rest.get(..2) {
        Some("TH") => Some(Case::Upper),
        Some("th") => Some(Case::Lower),
        _ => None,
    };
    if ordinal.is_some() {
        rest = &rest[2..];
    }
    Some((
        Token::Key {
            key: *key,
            case,
            fill,
            ordinal,
        },
        rest,
    ))
}
