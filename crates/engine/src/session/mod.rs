//! One client's conversation: its settings, its transaction state, its statements.

mod create;
mod ddl;
mod dml;
mod drop;
mod names;
mod params;
mod query;
mod running;
mod settings;
mod show;
mod sink;
mod subscribe;
mod views;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, ErrorKind, Result, Schema, Time};
use ruslo_sql::SessionContext;
use ruslo_sql::ast::{self, StatementKind};
use ruslo_sql::stack::{Deep, OnDeepStack};
use tokio::sync::watch;

use crate::Shared;
use crate::Subscription;
use crate::durable::{Definition, Recovering};
use settings::Settings;

/// A parsed statement, ready to be described or executed any number of times.
#[derive(Clone, Debug)]
pub struct Statement {
    ast: Arc<Deep<ast::Statement>>,
}

impl Statement {
    fn new(ast: ast::Statement) -> Statement {
        Statement {
            ast: Arc::new(Deep::new(ast)),
        }
    }

    /// The source text, without the closing semicolon.
    pub fn text(&self) -> &str {
        &self.ast.text
    }

    /// Whether it is only blanks and comments.
    pub fn is_empty(&self) -> bool {
        self.ast.kind == StatementKind::Empty
    }
}

/// What a statement takes and gives, for the extended protocol.
#[derive(Clone, Debug)]
pub struct Description {
    pub params: Vec<DataType>,
    /// None: the statement returns no rows.
    pub columns: Option<Schema>,
}

/// A message beside the result, PostgreSQL's NOTICE or WARNING.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    pub message: String,
}

/// What executing a statement gave.
#[derive(Debug)]
pub enum Outcome {
    /// Rows; `tag` is the word of the command tag (`SELECT`, `SHOW`, `EXPLAIN`, `INSERT 0 n` …).
    Rows {
        schema: Schema,
        batches: Vec<RecordBatch>,
        tag: String,
    },
    /// Rows that come without end.
    Changes(Box<Subscription>),
    /// Rows, to be sent in the text form of COPY.
    Copy(Box<Outcome>),
    /// No rows: the whole command tag, as `CREATE_SOURCE` or `INSERT 0 3`.
    Done { tag: String },
    /// The statement was empty.
    Empty,
}

impl Outcome {
    fn done(tag: &str) -> Result<Outcome> {
        Ok(Outcome::Done {
            tag: tag.to_string(),
        })
    }
}

/// A query parameter as the client sent it.
#[derive(Clone, Debug)]
pub enum Param {
    Null,
    /// PostgreSQL's text form.
    Text(String),
    /// PostgreSQL's binary form of the described parameter type.
    Binary(Vec<u8>),
}

/// Cancels what a session is executing, from another connection.
#[derive(Clone)]
pub struct CancelHandle {
    cancelled: Arc<watch::Sender<u64>>,
}

impl CancelHandle {
    /// Ends the statement that is running now, if any, with SQLSTATE 57014.
    pub fn cancel(&self) {
        self.cancelled.send_modify(|count| *count += 1);
    }
}

/// Where a session stands between BEGIN and COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
    Failed,
}

/// One client's conversation.
pub struct Session {
    shared: Arc<Shared>,
    user: String,
    database: String,
    settings: Settings,
    notices: Vec<Notice>,
    transaction: Transaction,
    savepoints: Vec<String>,
    /// Whether the open transaction block has written rows.
    wrote: bool,
    /// The time of this session's last write: its reads are never before it.
    last_write: Time,
    prepared: HashMap<String, (Statement, Vec<DataType>)>,
    cancelled: Arc<watch::Sender<u64>>,
    /// Set while an object of the server before is made again.
    recovering: Option<Recovering>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, user: &str, database: &str) -> Session {
        Session {
            shared,
            user: user.to_string(),
            database: database.to_string(),
            settings: Settings::default(),
            notices: vec![],
            transaction: Transaction::None,
            savepoints: vec![],
            wrote: false,
            last_write: 0,
            prepared: HashMap::new(),
            cancelled: Arc::new(watch::channel(0).0),
            recovering: None,
        }
    }

    /// Makes an object of the server before again, as its session made it.
    pub(crate) async fn recover(
        shared: Arc<Shared>,
        recovering: Recovering,
        text: &str,
    ) -> Result<()> {
        let Definition {
            owner,
            database,
            settings,
            ..
        } = &recovering.definition;
        let mut session = Session::new(shared, owner, database);
        for (name, value) in settings {
            session.settings.set(name, Some(value))?;
        }
        session.recovering = Some(recovering);
        for statement in session.parse(text)? {
            session.execute(&statement, &[], &[]).await?;
        }
        Ok(())
    }

    /// Splits and parses a query string of any number of statements.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        let statements = ruslo_sql::parse(sql)?;
        Ok(statements.into_iter().map(Statement::new).collect())
    }

    /// `hints` are parameter types the client fixed, in order; `None` where it left them open.
    pub async fn describe(
        &self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Description> {
        OnDeepStack::new(self.describe_deep(statement, hints)).await
    }

    async fn describe_deep(
        &self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Description> {
        let catalog = &self.names();
        let context = self.context();
        let (params, columns) = match &statement.ast.kind {
            StatementKind::Query(query) => {
                let plan = ruslo_sql::plan_select(query, catalog, &context, hints)?;
                (plan.param_types().to_vec(), Some(plan.schema().clone()))
            }
            StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_) => {
                let plan = self.plan_dml(&statement.ast.kind, hints)?;
                let params = plan.select.param_types().to_vec();
                (params, plan.returning_schema().cloned())
            }
            StatementKind::Subscribe(subscribe) => {
                (vec![], Some(self.describe_subscription(subscribe)?))
            }
            StatementKind::Show(show) => (vec![], Some(show::show_schema(show))),
            StatementKind::Describe(_) => (vec![], Some(show::columns_schema())),
            StatementKind::Explain(_) => (vec![], Some(show::explain_schema())),
            StatementKind::Execute { name, .. } => {
                let (prepared, types) = self.prepared_statement(name)?;
                let hints: Vec<_> = types.iter().cloned().map(Some).collect();
                let description = Box::pin(self.describe(prepared, &hints)).await?;
                (vec![], description.columns)
            }
            _ => (vec![], None),
        };
        Ok(Description { params, columns })
    }

    /// Executes a statement. `params` are in the types that [`Session::describe`] gave, handed
    /// back as `param_types`.
    ///
    /// Dropping the future abandons the statement.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        params: &[Param],
        param_types: &[DataType],
    ) -> Result<Outcome> {
        let executing = self.execute_cancellable(statement, params, param_types);
        let result = OnDeepStack::new(executing).await;
        if result.is_err() {
            self.statement_failed();
        }
        result
    }

    async fn execute_cancellable(
        &mut self,
        statement: &Statement,
        params: &[Param],
        param_types: &[DataType],
    ) -> Result<Outcome> {
        let ends = matches!(
            statement.ast.kind,
            StatementKind::Commit | StatementKind::Rollback | StatementKind::RollbackTo(_)
        );
        if self.transaction == Transaction::Failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of \
                           transaction block";
            return Err(Error::new(ErrorKind::FailedTransaction, message));
        }
        let style = self.settings.text_style()?;
        let params = params::decode(params, param_types, &style)?;
        let mut cancelled = self.cancelled.subscribe();
        cancelled.mark_unchanged();
        tokio::select! {
            result = self.dispatch(&statement.ast, params) => result,
            Ok(()) = cancelled.changed() => {
                let message = "canceling statement due to user request";
                Err(Error::new(ErrorKind::Cancelled, message))
            }
        }
    }

    async fn dispatch(
        &mut self,
        statement: &ast::Statement,
        params: Vec<ArrayRef>,
    ) -> Result<Outcome> {
        let text = &statement.text;
        match &statement.kind {
            StatementKind::Empty => Ok(Outcome::Empty),
            StatementKind::Query(query) => self.select(query, &params).await,
            kind @ (StatementKind::Insert(_)
            | StatementKind::Update(_)
            | StatementKind::Delete(_)) => self.write(kind, &params).await,
            StatementKind::Subscribe(subscribe) => self.subscribe(subscribe),
            StatementKind::CopyOut(statement) => {
                let rows = Box::pin(self.dispatch(statement, params)).await?;
                Ok(Outcome::Copy(Box::new(rows)))
            }
            StatementKind::Flush => self.flush().await,
            StatementKind::CreateSource(create) => self.create_source(create, text).await,
            StatementKind::CreateTable(create) => self.create_table(create, text).await,
            StatementKind::CreateMaterializedView(create) => {
                self.create_materialized_view(create, text).await
            }
            StatementKind::CreateView(create) => self.create_view(create, text).await,
            StatementKind::CreateSink(create) => self.create_sink(create, text).await,
            StatementKind::CreateSchema {
                if_not_exists,
                name,
            } => self.create_schema(*if_not_exists, name).await,
            StatementKind::Drop {
                kind,
                names,
                if_exists,
                cascade,
            } => self.drop_objects(*kind, names, *if_exists, *cascade).await,
            StatementKind::Rename { .. } => {
                Err(Error::unsupported("ALTER … RENAME is not supported yet"))
            }
            StatementKind::Show(show) => self.show(show).await,
            StatementKind::Describe(name) => self.describe_relation(name),
            StatementKind::Explain(explain) => self.explain(explain).await,
            StatementKind::Set { name, value, .. } => self.set(name, value.as_deref()),
            StatementKind::Reset(name) => self.reset(name.as_deref()),
            StatementKind::Begin => self.begin(),
            StatementKind::Commit => self.end(true),
            StatementKind::Rollback => self.end(false),
            StatementKind::Savepoint(name) => self.savepoint(name),
            StatementKind::Release(name) => self.release(name),
            StatementKind::RollbackTo(name) => self.rollback_to(name),
            StatementKind::Prepare {
                name,
                types,
                statement,
            } => self.prepare(name, types, statement).await,
            StatementKind::Execute { name, args } => self.execute_prepared(name, args).await,
            StatementKind::Deallocate(name) => self.deallocate(name.as_deref()),
            StatementKind::Discard => {
                self.prepared.clear();
                self.settings = Settings::default();
                Outcome::done("DISCARD ALL")
            }
            StatementKind::Use(database) => {
                self.database = database.clone();
                Outcome::done("USE")
            }
        }
    }

    /// Notices since the last call, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn notice(&mut self, message: impl Into<String>) {
        self.notices.push(Notice {
            severity: "NOTICE",
            message: message.into(),
        });
    }

    fn warning(&mut self, message: impl Into<String>) {
        self.notices.push(Notice {
            severity: "WARNING",
            message: message.into(),
        });
    }

    /// Settings to report to the client (`ParameterStatus`), as TimeZone, server_version …
    pub fn parameters(&self) -> Vec<(String, String)> {
        self.settings.reported(&self.user)
    }

    /// The session's time zone, in which timestamptz is printed.
    pub fn time_zone(&self) -> String {
        self.settings.time_zone().to_string()
    }

    /// Sets what the client asked for at start-up (`options`, `TimeZone`, …); unknown names are
    /// passed over, as drivers send many.
    pub fn set_startup_parameter(&mut self, name: &str, value: &str) {
        let _ = self.settings.set(name, Some(value));
    }

    /// Says that the rows of the last statement could not all be sent.
    pub fn statement_failed(&mut self) {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
    }

    /// 'I' idle, 'T' in a transaction block, 'E' in a failed one.
    pub fn transaction_status(&self) -> char {
        match self.transaction {
            Transaction::None => 'I',
            Transaction::Open => 'T',
            Transaction::Failed => 'E',
        }
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle {
            cancelled: self.cancelled.clone(),
        }
    }

    fn context(&self) -> SessionContext {
        SessionContext {
            user: self.user.clone(),
            database: self.database.clone(),
            time_zone: self.settings.time_zone().to_string(),
            search_path: self.search_path(),
            settings: self.settings.values(),
            ..SessionContext::default()
        }
    }

    fn begin(&mut self) -> Result<Outcome> {
        match self.transaction {
            Transaction::None => self.transaction = Transaction::Open,
            _ => self.warning("there is already a transaction in progress"),
        }
        self.wrote = false;
        Outcome::done("BEGIN")
    }

    fn end(&mut self, commit: bool) -> Result<Outcome> {
        let was = std::mem::replace(&mut self.transaction, Transaction::None);
        self.savepoints.clear();
        if was == Transaction::None {
            self.warning("there is no transaction in progress");
        }
        let commit = commit && was != Transaction::Failed;
        self.warn_of_writes(!commit);
        Outcome::done(if commit { "COMMIT" } else { "ROLLBACK" })
    }

    /// Every statement is a transaction of its own here; who undoes a block must know it.
    fn warn_of_writes(&mut self, undone: bool) {
        if std::mem::take(&mut self.wrote) && undone {
            self.warning(
                "rows written in this transaction block stay: each statement takes effect at once",
            );
        }
    }

    fn savepoint(&mut self, name: &str) -> Result<Outcome> {
        if self.transaction == Transaction::None {
            let message = "SAVEPOINT can only be used in transaction blocks";
            return Err(Error::new(ErrorKind::NoTransaction, message));
        }
        self.savepoints.push(name.to_string());
        Outcome::done("SAVEPOINT")
    }

    fn release(&mut self, name: &str) -> Result<Outcome> {
        let at = self.find_savepoint(name)?;
        self.savepoints.truncate(at);
        Outcome::done("RELEASE")
    }

    fn rollback_to(&mut self, name: &str) -> Result<Outcome> {
        let at = self.find_savepoint(name)?;
        self.savepoints.truncate(at + 1);
        self.transaction = Transaction::Open;
        self.warn_of_writes(true);
        Outcome::done("ROLLBACK")
    }

    fn find_savepoint(&self, name: &str) -> Result<usize> {
        let at = self
            .savepoints
            .iter()
            .rposition(|savepoint| savepoint == name);
        at.ok_or_else(|| {
            let message = format!("savepoint \"{name}\" does not exist");
            Error::new(ErrorKind::UndefinedSavepoint, message)
        })
    }

    async fn prepare(
        &mut self,
        name: &str,
        types: &[DataType],
        statement: &ast::Statement,
    ) -> Result<Outcome> {
        if self.prepared.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::new(ErrorKind::DuplicateObject, message));
        }
        let statement = Statement::new(statement.clone());
        let hints: Vec<_> = types.iter().cloned().map(Some).collect();
        let params = self.describe(&statement, &hints).await?.params;
        self.prepared.insert(name.to_string(), (statement, params));
        Outcome::done("PREPARE")
    }

    async fn execute_prepared(&mut self, name: &str, args: &[ast::SqlExpr]) -> Result<Outcome> {
        let (statement, types) = self.prepared_statement(name)?.clone();
        if args.len() != types.len() {
            let message = format!(
                "wrong number of parameters for prepared statement \"{name}\": expected {}, got {}",
                types.len(),
                args.len()
            );
            return Err(Error::new(ErrorKind::Syntax, message));
        }
        let params = self.evaluate(args, &types).await?;
        Box::pin(self.dispatch(&statement.ast, params)).await
    }

    /// The arguments of EXECUTE as arrays of length one in the given types.
    async fn evaluate(&self, args: &[ast::SqlExpr], types: &[DataType]) -> Result<Vec<ArrayRef>> {
        if args.is_empty() {
            return Ok(vec![]);
        }
        let items = args.iter().zip(types);
        let items = items.map(|(arg, ty)| format!("CAST({arg} AS {})", type_name(ty)));
        let query = format!("SELECT {}", items.collect::<Vec<_>>().join(", "));
        let query = ruslo_sql::parse_query(&query)?;
        let plan = ruslo_sql::plan_select(&query, &self.names(), &self.context(), &[])?;
        let batches = plan
            .execute(HashMap::new(), &[], &self.shared.query_memory)
            .await?;
        let row = batches.into_iter().find(|batch| batch.num_rows() == 1);
        let row = row.ok_or_else(|| Error::internal("EXECUTE's arguments gave no row"))?;
        Ok(row.columns().to_vec())
    }

    fn prepared_statement(&self, name: &str) -> Result<&(Statement, Vec<DataType>)> {
        self.prepared.get(name).ok_or_else(|| {
            let message = format!("prepared statement \"{name}\" does not exist");
            Error::new(ErrorKind::UndefinedStatement, message)
        })
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => self.prepared.clear(),
            Some(name) => {
                self.prepared_statement(name)?;
                self.prepared.remove(name);
            }
        }
        Outcome::done("DEALLOCATE")
    }
}
