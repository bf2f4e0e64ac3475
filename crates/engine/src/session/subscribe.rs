//! SUBSCRIBE.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ruslo_repr::{Error, ErrorKind, Result, Schema};
use ruslo_sql::RelationKind;
use ruslo_sql::ast::Subscribe;

use super::{Outcome, Session};
use crate::catalog::Object;
use crate::layout::Layout;
use crate::subscription::{Subscription, SubscriptionConfig, subscription_schema};

impl Session {
    pub(super) fn describe_subscription(&self, subscribe: &Subscribe) -> Result<Schema> {
        let object = self.subscribed(subscribe)?;
        let schema = object.relation().map(|relation| &relation.schema);
        Ok(subscription_schema(
            schema.unwrap_or(&Schema::default()),
            subscribe.progress,
        ))
    }

    pub(super) fn subscribe(&self, subscribe: &Subscribe) -> Result<Outcome> {
        let shared = &self.shared;
        let object = self.subscribed(subscribe)?;
        let (Some(relation), Some(layout)) = (object.relation(), Layout::of(&object)) else {
            return Err(Error::internal("a subscription to what has no rows"));
        };
        let acknowledged = shared.acknowledged.load(Ordering::Acquire);
        let times = [object.readable_from()?, self.last_write, acknowledged];
        let config = SubscriptionConfig {
            id: self.new_id(),
            from: object.id,
            name: object.name.clone(),
            schema: relation.schema.clone(),
            layout: layout?,
            at_least: times.into_iter().max().unwrap_or(0),
            snapshot: subscribe.snapshot,
            progress: subscribe.progress,
            workers: shared.workers.workers(),
        };
        let mut cancelled = self.cancelled.subscribe();
        cancelled.mark_unchanged();
        let all = shared.subscriptions.clone();
        let feed = Subscription::start(config, shared.coordinator.clone(), all, cancelled);
        Ok(Outcome::Changes(Box::new(feed)))
    }

    /// The table or view that is meant.
    fn subscribed(&self, subscribe: &Subscribe) -> Result<Arc<Object>> {
        let name = &subscribe.name;
        let relation = self.relation(name)?;
        match self.shared.catalog.get(relation.id) {
            Some(object) if object.arranged_by().is_some() => Ok(object),
            None if relation.kind != RelationKind::System => {
                let message = format!("relation \"{name}\" was dropped");
                Err(Error::new(ErrorKind::UndefinedTable, message))
            }
            _ => {
                let message = format!("cannot subscribe to \"{name}\"");
                let hint = "SUBSCRIBE takes a materialized view or a table.";
                Err(Error::new(ErrorKind::WrongObjectType, message).with_hint(hint))
            }
        }
    }
}
