//! The handle to all worker threads of this process.

use std::any::Any;
use std::sync::{Arc, Mutex, mpsc};

use ruslo_repr::eval::Evaluator;
use ruslo_repr::{Error, ObjectId, Result};
use timely::WorkerConfig;
use timely::communication::WorkerGuards;

use crate::protocol::{Command, Response};
use crate::queue::{BatchQueue, Registry, Waker, lock};
use crate::worker::{Worker, WorkerEnds};

/// A worker walks expressions by recursion, which SQL may nest a thousand levels deep. It is
/// address space: pages are taken as they are touched.
const STACK_BYTES: usize = 256 << 20;

/// Called from worker threads with everything they report; must not block.
pub(crate) type OnResponse = Arc<dyn Fn(Response) + Send + Sync>;

/// How many workers to run and what computes their expressions.
pub struct WorkersConfig {
    pub workers: usize,
    pub evaluator: Arc<dyn Evaluator>,
    /// Whether state is handed over at checkpoints.
    pub durable: bool,
}

/// Wrong behaviour that a test asks for, to see that it would be noticed.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Groups of three rows are counted as four.
    pub count: bool,
    /// Joins lose some matches.
    pub join: bool,
    /// Filters and projections keep rows that were taken away.
    pub retraction: bool,
    /// Checkpoints miss what changed at the first durable point of each object.
    pub durable: bool,
}

/// Lets one worker go on by one turn at a time, so that whoever has it decides what comes when: a
/// simulation, where only one thread runs at any moment.
#[doc(hidden)]
pub struct Pacer {
    go: mpsc::Sender<()>,
    done: mpsc::Receiver<bool>,
}

impl Pacer {
    /// Lets the worker do one turn and waits for its end; whether it had something to do.
    pub fn turn(&mut self) -> bool {
        self.go.send(()).is_ok() && self.done.recv().unwrap_or(false)
    }
}

/// The worker's end of a [`Pacer`].
pub(crate) struct Pace {
    go: mpsc::Receiver<()>,
    done: mpsc::Sender<bool>,
}

impl Pace {
    fn new() -> (Pacer, Pace) {
        let (go, wait) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let pace = Pace {
            go: wait,
            done: tell,
        };
        (Pacer { go, done }, pace)
    }

    /// Waits for the next turn; false once nobody will give one.
    pub(crate) fn wait(&self) -> bool {
        self.go.recv().is_ok()
    }

    pub(crate) fn done(&self, busy: bool) {
        let _ = self.done.send(busy);
    }
}

/// All workers of this process. Cheap to clone; the last clone to go shuts them down.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    guards: Mutex<Option<WorkerGuards<()>>>,
}

/// What the handle and the worker threads have in common.
pub(crate) struct Shared {
    pub(crate) queues: Registry,
    pub(crate) wakers: Vec<Waker>,
    /// Where each worker's commands go in; sending holds the lock, so all see one order.
    commands: Mutex<Vec<mpsc::Sender<Arc<Command>>>>,
}

impl Workers {
    /// Starts the worker threads.
    ///
    /// `on_response` is called from worker threads and must not block. Fails with
    /// `InvalidParameter` for no workers, and if threads cannot be started.
    pub fn start(config: WorkersConfig, on_response: OnResponse) -> Result<Workers> {
        Self::start_with_faults(config, Faults::default(), on_response)
    }

    #[doc(hidden)]
    pub fn start_with_faults(
        config: WorkersConfig,
        faults: Faults,
        on_response: OnResponse,
    ) -> Result<Workers> {
        let paces = vec![];
        Self::start_paced(config, faults, on_response, paces)
    }

    /// Starts workers that do nothing by themselves.
    #[doc(hidden)]
    pub fn start_in_turns(
        config: WorkersConfig,
        faults: Faults,
        on_response: OnResponse,
    ) -> Result<(Workers, Vec<Pacer>)> {
        let (pacers, paces) = (0..config.workers).map(|_| Pace::new()).unzip();
        let workers = Self::start_paced(config, faults, on_response, paces)?;
        Ok((workers, pacers))
    }

    fn start_paced(
        config: WorkersConfig,
        faults: Faults,
        on_response: OnResponse,
        paces: Vec<Pace>,
    ) -> Result<Workers> {
        if config.workers == 0 {
            let kind = ruslo_repr::ErrorKind::InvalidParameter;
            return Err(Error::new(kind, "the number of workers must be at least 1"));
        }
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::channel()).unzip();
        let shared = Arc::new(Shared {
            queues: Registry::default(),
            wakers: (0..config.workers).map(|_| Waker::default()).collect(),
            commands: Mutex::new(senders),
        });
        let receivers = Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
        let paces = Mutex::new(paces.into_iter().map(Some).collect::<Vec<_>>());
        let (for_workers, evaluator) = (shared.clone(), config.evaluator);
        let durable = config.durable;
        let communication = timely::CommunicationConfig::Process(config.workers);
        let timely_config = timely::Config {
            communication,
            worker: WorkerConfig::default(),
        };
        let guards = timely::execute(timely_config, move |timely| {
            let index = timely.index();
            for_workers.wakers[index].register_current_thread();
            let Some(commands) = lock(&receivers)[index].take() else {
                return;
            };
            let ends = WorkerEnds {
                commands,
                shared: for_workers.clone(),
                evaluator: evaluator.clone(),
                on_response: on_response.clone(),
                faults,
                durable,
                pace: lock(&paces).get_mut(index).and_then(Option::take),
            };
            stacker::grow(STACK_BYTES, || run_worker(timely, ends));
        });
        let guards = guards.map_err(|message| {
            Error::internal("the worker threads could not be started").with_detail(message)
        })?;
        Ok(Workers(Arc::new(Inner {
            shared,
            guards: Mutex::new(Some(guards)),
        })))
    }

    /// Hands a command to every worker and wakes them. All workers see one order.
    pub fn send(&self, command: Command) {
        self.0.shared.send(command);
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.shared.wakers.len()
    }

    /// The queue of a source's new batches for one worker, which takes them at the next Close.
    ///
    /// Panics if there is no such worker.
    pub fn live_queue(&self, worker: usize, source: ObjectId) -> BatchQueue {
        assert!(worker < self.workers(), "there is no worker {worker}");
        self.0.shared.queues.live(worker, source)
    }

    /// The queue of a source's past batches for one view on one worker, taken as they come.
    ///
    /// Panics if there is no such worker.
    pub fn hydration_queue(&self, worker: usize, view: ObjectId, source: ObjectId) -> BatchQueue {
        let waker = self.0.shared.wakers[worker].clone();
        self.0.shared.queues.hydration(worker, view, source, waker)
    }

    /// The queue of one durable point's state for one worker, taken as it comes. Batches have the
    /// point's row columns, `diff` and its sums; what of it goes to which worker does not matter.
    ///
    /// Panics if there is no such worker.
    pub fn restore_queue(&self, worker: usize, object: ObjectId, point: u32) -> BatchQueue {
        let waker = self.0.shared.wakers[worker].clone();
        self.0.shared.queues.restore(worker, object, point, waker)
    }

    /// Waits for the threads to end, after [`Command::Shutdown`].
    pub fn join(self) {
        self.0.join();
    }
}

impl Shared {
    fn send(&self, command: Command) {
        if matches!(command, Command::Shutdown) {
            self.queues.shut_down();
        }
        let command = Arc::new(command);
        for sender in lock(&self.commands).iter() {
            // A worker that is gone has reported so.
            let _ = sender.send(command.clone());
        }
        self.wakers.iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn join(&self) {
        if let Some(guards) = lock(&self.guards).take() {
            for result in guards.join() {
                if let Err(message) = result {
                    tracing::error!(message, "a worker thread ended by a panic");
                }
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.send(Command::Shutdown);
        self.join();
    }
}

/// Runs one worker; a panic in it is reported before it ends the thread.
fn run_worker(timely: &mut timely::worker::Worker, ends: WorkerEnds) {
    let index = timely.index();
    let (shared, on_response) = (ends.shared.clone(), ends.on_response.clone());
    let run = std::panic::AssertUnwindSafe(|| Worker::new(timely, ends).run());
    if let Err(panic) = std::panic::catch_unwind(run) {
        // Producers must not wait for a worker that is gone.
        shared.queues.shut_down();
        let error = Error::internal(format!("worker {index} panicked"))
            .with_detail(panic_message(panic.as_ref()))
            .with_hint("Restart the server, and please report this with its log.");
        on_response(Response::Failed {
            worker: index,
            error,
        });
        std::panic::resume_unwind(panic);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message.to_string(),
        (_, Some(message)) => message.clone(),
        _ => "no message".to_string(),
    }
}
