//! Values as PostgreSQL writes and reads them.
