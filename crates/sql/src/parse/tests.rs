//! The article's statements and one of every other kind.
