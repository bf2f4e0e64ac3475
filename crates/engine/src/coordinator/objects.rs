//! Objects that come, come back after a restart, and go.

use std::sync::Arc;

use ruslo_dataflow::Command;
use ruslo_repr::{Error, ObjectId, Result, Time};
use tokio::sync::oneshot;

use super::{Replayed, State};
use crate::layout::Layout;

impl State {
    /// Gives the workers a table or view, and waits for what must be waited for.
    pub(super) fn bring_back(&mut self, command: Command) {
        match &command {
            Command::CreateTable {
                id,
                schema,
                key,
                restore,
                ..
            } => {
                self.arranged.push(*id);
                if *restore {
                    self.hydrating.insert(*id, self.workers.workers());
                }
                match Layout::new(schema.clone(), key) {
                    Ok(layout) => drop(self.tables.insert(*id, Arc::new(layout))),
                    Err(error) => drop(self.failure.send_replace(Some(error))),
                }
            }
            Command::CreateView { id, .. } => {
                self.arranged.push(*id);
                self.hydrating.insert(*id, self.workers.workers());
            }
            _ => {}
        }
        self.workers.send(command);
    }

    pub(super) fn replay(&mut self, times: Vec<Replayed>, reply: Option<oneshot::Sender<()>>) {
        if let (Some(last), Some(reply)) = (times.last(), reply) {
            self.replaying = Some((last.time, self.workers.workers(), reply));
        }
        for Replayed { time, rows } in times {
            for (table, updates) in rows {
                self.workers.send(Command::Write { table, updates });
            }
            self.workers.send(Command::Close { time });
        }
    }

    /// A worker has gone through a time of the past, which is bound already.
    pub(super) fn replayed(&mut self, time: Time, offsets: &[(ObjectId, i32, i64)]) {
        if !offsets.is_empty() {
            // They would be in the state and in no binding, and be read twice after a crash.
            let error = Error::internal("live messages were taken for a time of the past");
            self.failure.send_replace(Some(error));
        }
        let Some((last, missing, _)) = &mut self.replaying else {
            return;
        };
        if time < *last {
            return;
        }
        *missing -= 1;
        if *missing == 0
            && let Some((_, _, reply)) = self.replaying.take()
        {
            let _ = reply.send(());
        }
    }

    /// Keeps what was dropped out of checkpoints from now on. The workers hear of it a little later;
    /// a checkpoint in between would keep its state until something else changes.
    pub(super) fn leave_out(&mut self, dropped: &[u64]) {
        let definitions = dropped.iter().filter_map(|id| self.image.objects.get(id));
        let views = definitions.filter_map(|definition| definition.view);
        let gone: Vec<u64> = views.chain(dropped.iter().copied()).collect();
        self.arranged.retain(|id| !gone.contains(&id.0));
    }

    pub(super) fn drop_objects(&mut self, mut ids: Vec<ObjectId>) {
        // A subscription ends with what it reads; nothing in the catalog tells of it.
        let readers = self.sinks.iter().filter(|(_, end)| ids.contains(&end.from));
        let mut all: Vec<ObjectId> = readers.map(|(id, _)| *id).collect();
        all.retain(|id| !ids.contains(id));
        all.append(&mut ids);
        for id in all {
            self.sinks.remove(&id);
            self.offsets.remove(&id);
            self.tables.remove(&id);
            self.hydrating.remove(&id);
            self.rejected.remove(&id);
            self.hydration_waits.retain(|(waited, _)| *waited != id);
            self.arranged.retain(|arranged| *arranged != id);
            self.workers.send(Command::Drop { id });
        }
    }

    pub(super) fn hydrated(&mut self, id: ObjectId) {
        let Some(missing) = self.hydrating.get_mut(&id) else {
            return;
        };
        *missing -= 1;
        if *missing == 0 {
            self.hydrating.remove(&id);
            self.end_waits(id, Ok(()));
        }
    }

    pub(super) fn rejected(&mut self, id: ObjectId, error: Error) {
        self.hydrating.remove(&id);
        self.arranged.retain(|arranged| *arranged != id);
        self.end_waits(id, Err(error.clone()));
        self.rejected.insert(id, error);
    }

    pub(super) fn end_waits(&mut self, id: ObjectId, result: Result<()>) {
        for (waited, reply) in std::mem::take(&mut self.hydration_waits) {
            match waited == id {
                true => drop(reply.send(result.clone())),
                false => self.hydration_waits.push((waited, reply)),
            }
        }
    }
}
