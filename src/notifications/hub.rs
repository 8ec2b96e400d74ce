//! One listener: a connection to the primary, and those it listens for.

use super::listeners::{House, Place, Wish};
use super::senders::{process_of, renamed};
use super::table::{Change, Table};
use crate::backend;
use crate::backend::{Backend, Heard, QueryError};
use crate::pg::quote_identifier;
use crate::timer;
use crate::topology::ServerId;
use crate::wire::message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// How long a listener stays when nobody listens any more. Whoever wants to drop the database
/// waits for 5 s.
const LINGER: Duration = Duration::from_secs(2);
/// How often those who are gone are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Longest time for connecting.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Between two attempts that failed.
const RETRY: Duration = Duration::from_millis(250);

/// One listener.
pub(super) struct Hub {
    /// Its number, which is nobody else's.
    number: u64,
    place: Place,
    house: Arc<House>,
    wishes: mpsc::Receiver<Wish>,
    table: Table,
    /// For each statement that was sent, those who wait for it.
    owed: VecDeque<Vec<oneshot::Sender<()>>>,
    /// Those who wait for a connection.
    waiting: Vec<oneshot::Sender<()>>,
}

/// Why a connection is given up.
enum Parting {
    /// It broke.
    Broken(QueryError),
    /// Its server is not the primary any more.
    Replaced,
    /// Nobody listens any more.
    Alone,
}

impl Hub {
    pub(super) fn new(
        number: u64,
        place: Place,
        house: Arc<House>,
        wishes: mpsc::Receiver<Wish>,
    ) -> Self {
        let (table, owed, waiting) = (Table::default(), VecDeque::new(), Vec::new());
        Self { number, place, house, wishes, table, owed, waiting }
    }

    /// Listens until nobody does any more.
    pub(super) async fn run(mut self) {
        loop {
            if !self.is_wanted().await {
                return;
            }
            let (server, mut backend) = self.connect().await;
            let parting = self.serve(server, &mut backend).await;
            self.house.senders.leave(self.number);
            match parting {
                Parting::Alone => {}
                Parting::Replaced => debug!(database = %self.place.database, "listener moves"),
                Parting::Broken(error) => {
                    debug!(database = %self.place.database, %error, "listener lost");
                    timer::sleep(RETRY).await;
                }
            }
            self.table.lose();
            self.waiting.extend(self.owed.drain(..).flatten());
        }
    }

    /// Whether anybody listens, or wants to within a while.
    async fn is_wanted(&mut self) -> bool {
        if !self.table.is_empty() {
            return true;
        }
        let wish = match timer::timeout(LINGER, self.wishes.recv()).await {
            Ok(wish) => wish,
            Err(_) => self.house.leave(&self.place, &mut self.wishes),
        };
        match wish {
            Some(wish) => {
                self.note(wish);
                true
            }
            None => false,
        }
    }

    /// Takes note of a wish while there is no connection.
    fn note(&mut self, wish: Wish) {
        let Wish { id, ear, channels, done } = wish;
        self.table.follow(id, ear, channels);
        self.waiting.push(done);
    }

    /// A connection to the primary, however long that takes.
    async fn connect(&mut self) -> (ServerId, Backend) {
        let mut news = self.house.board.subscribe();
        loop {
            let primary = self.house.board.load().writable();
            let found = primary.and_then(|id| Some((id, self.house.servers.get(id.index())?)));
            if let Some((server, (target, login))) = found {
                let mut login = login.clone();
                login.database = Arc::clone(&self.place.database);
                login.params.push(("client_encoding".to_owned(), self.place.encoding.to_string()));
                match backend::connect(target, &login, CONNECT_MAX).await {
                    Ok(backend) => return (server, backend),
                    Err(error) => {
                        debug!(database = %self.place.database, %error, "listener can't connect");
                    }
                }
            }
            tokio::select! {
                () = timer::sleep(RETRY) => {}
                _ = news.changed() => {}
                Some(wish) = self.wishes.recv() => self.note(wish),
            }
        }
    }

    /// Listens on this connection for as long as it is the right one.
    async fn serve(&mut self, server: ServerId, backend: &mut Backend) -> Parting {
        let mut news = self.house.board.subscribe();
        let mut sweep = timer::interval(SWEEP);
        let marks = self.house.senders.channel();
        let listen = self.table.channels().cloned().chain([marks.into()]).collect();
        let change = Change { listen, ..Change::default() };
        let done = std::mem::take(&mut self.waiting);
        if let Err(error) = self.tell(backend, &change, done).await {
            return Parting::Broken(error);
        }
        let mut first = true;
        loop {
            let writable = self.house.board.load().writable();
            if writable.is_some_and(|writable| writable != server) {
                return Parting::Replaced;
            }
            if self.table.is_empty() {
                return Parting::Alone;
            }
            let (change, done) = tokio::select! {
                heard = backend.hear() => match heard {
                    Ok(Heard::Ready) => {
                        if std::mem::take(&mut first) {
                            // Before anybody is answered: what is heard for him is behind it.
                            let database = Arc::clone(&self.place.database);
                            self.house.senders.enter(self.number, database);
                            self.table.resume();
                        }
                        for done in self.owed.pop_front().into_iter().flatten() {
                            // Who does not wait any more has given up.
                            let _given_up = done.send(()).is_err();
                        }
                        continue;
                    }
                    Ok(Heard::Notification(message)) => {
                        (self.deliver(server, &message), Vec::new())
                    }
                    Ok(Heard::Other) => continue,
                    Err(error) => return Parting::Broken(error),
                },
                Some(wish) = self.wishes.recv() => {
                    let Wish { id, ear, channels, done } = wish;
                    (self.table.follow(id, ear, channels), vec![done])
                }
                _ = sweep.tick() => (self.table.sweep(), Vec::new()),
                _ = news.changed() => continue,
            };
            if let Err(error) = self.tell(backend, &change, done).await {
                return Parting::Broken(error);
            }
        }
    }

    /// Puts a notification into the ears that it is for, under the process that its sender's client
    /// knows.
    fn deliver(&mut self, server: ServerId, message: &[u8]) -> Change {
        let (Ok(notification), Some(process)) =
            (message::read_notification(message), process_of(message))
        else {
            return Change::default();
        };
        let (senders, process) = (&self.house.senders, (server, process));
        if notification.channel == senders.channel().as_bytes() {
            senders.pass(self.number, process, notification.payload);
            return Change::default();
        }
        let channel = String::from_utf8_lossy(notification.channel);
        let message = match senders.heard_by(self.number, process) {
            Some(client) => Arc::from(renamed(message, client)),
            None => Arc::from(message),
        };
        self.table.deliver(&channel, &message)
    }

    /// Has the server listen accordingly; whoever waits for it is answered when it does.
    async fn tell(
        &mut self,
        backend: &mut Backend,
        change: &Change,
        done: Vec<oneshot::Sender<()>>,
    ) -> Result<(), QueryError> {
        let mut sql = String::new();
        for channel in &change.listen {
            sql.push_str("LISTEN ");
            sql.push_str(&quote_identifier(channel));
            sql.push(';');
        }
        for channel in &change.unlisten {
            sql.push_str("UNLISTEN ");
            sql.push_str(&quote_identifier(channel));
            sql.push(';');
        }
        if sql.is_empty() && done.is_empty() {
            return Ok(());
        }
        // Also with nothing to do: another's wish for the same channel may be on its way.
        self.owed.push_back(done);
        backend.tell(&sql).await
    }
}
