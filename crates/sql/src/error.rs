//! DataFusion's errors as PostgreSQL's users know them.
