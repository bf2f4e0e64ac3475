//! A `redis-server` of the demo's own: a free port, a temporary directory, gone when we are.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The child process; killed when dropped.
pub(super) struct OwnRedis {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl OwnRedis {
    /// Starts the server and waits until it accepts connections.
    ///
    /// To be called on the main thread: the kernel ends the child when the thread that started it
    /// ends, and that one lives as long as the process.
    pub(super) async fn start() -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for Redis")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole process group; Redis is ended by us, after the sink.
            .process_group(0);
        end_with_us(&mut command);
        let child = command.spawn().context(
            "cannot start redis-server; install it, or name a running one with --redis URL",
        )?;
        let mut server = OwnRedis {
            child,
            port,
            _directory: directory,
        };
        server.wait().await?;
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .is_err()
        {
            if let Some(status) = self.child.try_wait()? {
                bail!("redis-server ended at once with {status}");
            }
            if Instant::now() > deadline {
                bail!("redis-server does not answer on port {}", self.port);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // It holds nothing that is worth saving, and may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the child if this process dies without saying goodbye.
fn end_with_us(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl, getppid and raw errors are used, all of which are
    // async-signal-safe; nothing allocates or takes a lock.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above.
            match libc::getppid() as u32 == parent {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
}
