//! Views that run: their dataflow, the sources they read, and the past they read first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ruslo_dataflow::Command;
use ruslo_repr::{Error, ErrorKind, ObjectId, Plan, Result};
use ruslo_sql::ViewPlan;

use super::Session;
use crate::catalog::{Body, View};
use crate::coordinator::{Request, ViewStart};
use crate::durable::Recovering;
use crate::ingest::{Past, Source};

/// How often a view that reads its past looks whether the readers still live.
const HYDRATION_CHECK: Duration = Duration::from_millis(200);

/// A source, and the columns that a view reads of it.
type Reads = Vec<(Arc<Source>, Vec<usize>)>;

impl Session {
    /// Starts a view's dataflow and waits until it has read all that was there before it.
    ///
    /// When this fails or is abandoned, nothing of the view stays behind. The view may come with
    /// warnings, about messages that its sources no longer have.
    pub(super) async fn run_view(
        &self,
        id: ObjectId,
        name: &str,
        plan: ViewPlan,
    ) -> Result<(View, Vec<String>)> {
        if let Some(recovering) = &self.recovering {
            let view = self.recover_view(recovering, id, name, plan).await?;
            return Ok((view, vec![]));
        }
        let shared = &self.shared;
        self.check_inputs(&plan.plan)?;
        let sources = self.reads_of(&plan.plan)?;
        let mut unfinished = Unfinished {
            session: self,
            id,
            sources: vec![],
            done: false,
        };
        for (source, columns) in &sources {
            unfinished.sources.push(source.clone());
            source.add_reader(id, columns).await;
        }
        let hydrate: Vec<ObjectId> = sources
            .iter()
            .filter(|(s, _)| s.was_started())
            .map(|(s, _)| s.id)
            .collect();
        let (plan_sent, key) = (plan.plan.clone(), plan.key.clone());
        let (name, hydrating) = (name.to_string(), hydrate.clone());
        let create = |reply| Request::CreateView {
            id,
            name,
            plan: plan_sent,
            key,
            hydrate: hydrating,
            reply,
        };
        let start = shared.coordinator.ask(create).await?;
        let warnings = self.missing_messages(&sources, &hydrate, &start).await?;
        let pasts = self.read_sources(id, &sources, &hydrate, &start).await?;
        self.wait_hydrated(id, &pasts).await?;
        unfinished.done = true;
        let view = View {
            readable_from: start.as_of,
            arranged_by: plan.key,
            sources: sources.into_iter().map(|(source, _)| source).collect(),
            broken: OnceLock::new(),
        };
        Ok((view, warnings))
    }

    /// Starts the dataflow of a view that the server before had; its past is read beside that of
    /// others, see [`Recovering::pasts`].
    async fn recover_view(
        &self,
        recovering: &Recovering,
        id: ObjectId,
        name: &str,
        plan: ViewPlan,
    ) -> Result<View> {
        let points = recovering.points_of_view(id, &plan.plan);
        let as_of = match &points {
            Some(_) => recovering.checkpoint.time,
            None => recovering.last,
        };
        let mut reads = vec![];
        for (source, columns) in self.reads_of(&plan.plan)? {
            source.add_reader(id, &columns).await;
            let again = match &points {
                Some(_) => recovering.again(source.id).map(Some),
                None => recovering.bound.contains_key(&source.id).then_some(None),
            };
            reads.push((source, columns, again));
        }
        let hydrate = reads.iter().filter(|(_, _, again)| again.is_some());
        self.shared
            .coordinator
            .send(Request::Recover(Command::CreateView {
                id,
                name: name.to_string(),
                plan: plan.plan,
                key: plan.key.clone(),
                as_of,
                hydrate: hydrate.map(|(source, _, _)| source.id).collect(),
                restore: points.clone(),
            }));
        if let Some(points) = points {
            recovering.feed(&self.shared, id, points)?;
        }
        let sources = reads.iter().map(|(source, _, _)| source.clone()).collect();
        let mut pasts = vec![];
        for (source, columns, again) in reads {
            let (Some(again), Some(bound)) = (again, recovering.bound.get(&source.id)) else {
                continue;
            };
            let (workers, bound) = (self.shared.workers.clone(), bound.clone());
            let reading = source.clone();
            let past = self
                .shared
                .host
                .blocking(move || reading.hydrate(id, &columns, again.as_ref(), &bound, &workers));
            pasts.push((source, past.await?));
        }
        recovering.pasts.lock().push((id, pasts));
        Ok(View {
            readable_from: as_of,
            arranged_by: plan.key,
            sources,
            broken: OnceLock::new(),
        })
    }

    /// Fails if the plan reads a view that was lost.
    fn check_inputs(&self, plan: &Plan) -> Result<()> {
        let mut result = Ok(());
        plan.visit(&mut |node| {
            if let Plan::Get { id, .. } = node
                && let Some(object) = self.shared.catalog.get(*id)
                && let Err(error) = object.readable_from()
            {
                result = Err(error);
            }
        });
        result
    }

    /// The sources that a plan reads itself.
    fn reads_of(&self, plan: &Plan) -> Result<Reads> {
        let reads = source_columns(plan).into_iter().map(|(id, columns)| {
            let object = self.shared.catalog.get(id);
            match object.as_ref().map(|object| &object.body) {
                Some(Body::Source { source, .. }) => Ok((source.clone(), columns)),
                _ => Err(Error::internal("a view reads a source that is not there")),
            }
        });
        reads.collect()
    }

    /// Which messages the new view should read and its sources' topics no longer have.
    async fn missing_messages(
        &self,
        sources: &Reads,
        hydrate: &[ObjectId],
        start: &ViewStart,
    ) -> Result<Vec<String>> {
        let mut warnings = vec![];
        for (source, _) in sources {
            let reads_past = hydrate.contains(&source.id);
            if source.status().is_some() && !reads_past {
                continue;
            }
            let mut from = source.start.clone();
            if !reads_past {
                from.extend(start.bound.get(&source.id).into_iter().flatten());
            }
            let options = source.options.clone();
            let host = &self.shared.host;
            let broker = host.broker.clone();
            let kept = host.blocking(move || broker.watermarks(&options)).await?;
            for (partition, (low, _)) in kept {
                let from = from.get(&partition).copied().unwrap_or(0);
                if from < low {
                    warnings.push(format!(
                        "source \"{}\": offsets {from} to {low} of partition {partition} are no \
                         longer in topic \"{}\"; the view begins after them",
                        source.name,
                        source.options.topic()
                    ));
                }
            }
        }
        Ok(warnings)
    }

    pub(super) fn warn_all(&mut self, warnings: Vec<String>) {
        warnings
            .into_iter()
            .for_each(|warning| self.warning(warning));
    }

    /// Starts the live flow where it does not run, and the reading of the past where there is one.
    async fn read_sources(
        &self,
        view: ObjectId,
        sources: &Reads,
        hydrate: &[ObjectId],
        start: &ViewStart,
    ) -> Result<Vec<(Arc<Source>, Past)>> {
        let mut pasts = vec![];
        for (source, columns) in sources {
            let bound = start.bound.get(&source.id).cloned();
            let (workers, coordinator) =
                (self.shared.workers.clone(), self.shared.coordinator.clone());
            let (opened, columns) = (source.clone(), columns.to_vec());
            let has_past = hydrate.contains(&source.id);
            let past = self.shared.host.blocking(move || {
                opened.start_live(bound.as_ref(), &workers, &coordinator)?;
                let bound = bound.unwrap_or_default();
                match has_past {
                    true => opened
                        .hydrate(view, &columns, None, &bound, &workers)
                        .map(Some),
                    false => Ok(None),
                }
            });
            if let Some(past) = past.await? {
                pasts.push((source.clone(), past));
            }
        }
        Ok(pasts)
    }

    async fn wait_hydrated(&self, id: ObjectId, pasts: &[(Arc<Source>, Past)]) -> Result<()> {
        let hydrated = self
            .shared
            .coordinator
            .ask(|reply| Request::WaitHydrated { id, reply });
        tokio::pin!(hydrated);
        loop {
            tokio::select! {
                result = &mut hydrated => return result?,
                () = tokio::time::sleep(HYDRATION_CHECK) => {}
            }
            for (source, past) in pasts {
                if let Some(error) = past.failure() {
                    let message = format!("cannot read the past of source \"{}\"", source.name);
                    return Err(Error::new(ErrorKind::External, message).with_detail(error));
                }
            }
        }
    }
}

/// Takes a view that did not come to be back out of everything.
pub(super) struct Unfinished<'a> {
    pub(super) session: &'a Session,
    pub(super) id: ObjectId,
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) done: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.session
            .shared
            .coordinator
            .send(Request::Drop(vec![self.id]));
        let (sources, id) = (std::mem::take(&mut self.sources), self.id);
        self.session.shared.host.blocking_beside(move || {
            sources.iter().for_each(|source| source.remove_reader(id));
        });
    }
}

/// Which columns a plan reads of each source.
fn source_columns(plan: &Plan) -> Vec<(ObjectId, Vec<usize>)> {
    let mut reads = BTreeMap::<ObjectId, BTreeSet<usize>>::new();
    plan.visit(&mut |node| {
        if let Plan::Source { id, columns, .. } = node {
            reads.entry(*id).or_default().extend(columns);
        }
    });
    reads
        .into_iter()
        .map(|(id, columns)| (id, columns.into_iter().collect()))
        .collect()
}
