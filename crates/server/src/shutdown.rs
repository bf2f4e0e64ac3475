//! The one signal that ends all of the server's tasks.

use tokio::sync::watch;

/// Turns true, once, when the server goes down.
pub type Shutdown = watch::Receiver<bool>;

/// Resolves when the server goes down; a dropped sender means the same.
pub(crate) async fn ended(shutdown: &mut Shutdown) {
    // An error means that the sender is gone, and the server with it.
    let _ = shutdown.wait_for(|&down| down).await;
}
