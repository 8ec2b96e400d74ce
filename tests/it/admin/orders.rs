//! Orders of operators: who may give them, what they are told, what the conductor gets.

use crate::admin::{Admin, metrics, parsed};
use pgsteer::admin::{AccountReport, Operators, OrderState, PreviewReport};
use pgsteer::control::{Ask, Bulletin, Progress, Steward};
use pgsteer::failover::{
    Appointed, Kind, Loss, MaxLoss, Order, Phase, Preview, Promise, Record, Refusal, Verdict,
    WeakPromise, Why,
};
use pgsteer::pg::{SystemId, Timeline};
use pgsteer::sandbox::{Scratch, eventually};
use pgsteer::store::FileStore;
use pgsteer::topology::Epoch;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// The endpoints, and the other end of what they hand on.
struct Office {
    admin: Admin,
    asks: mpsc::Receiver<Ask>,
    token: String,
    token_file: String,
    _scratch: Scratch,
}

impl Office {
    fn open() -> Self {
        let scratch = Scratch::new().unwrap();
        let store = FileStore::open(&scratch.path().join("state"), &["a".into()]).unwrap();
        let (token, path) = store.new_token().unwrap();
        let (sender, asks) = mpsc::channel(4);
        let bulletin = Arc::new(Bulletin::new(metrics()));
        bulletin.store(Progress {
            record: Some(Arc::new(record())),
            why: Some(Why::AllWell),
            ..Progress::default()
        });
        let steward = Steward::new(sender, bulletin, Arc::default());
        let (shown, token_file) = (token.reveal().to_owned(), path.display().to_string());
        let admin = Admin::with(Operators {
            steward,
            token: Some((token, path)),
            settings: Arc::default(),
        });
        Self { admin, asks, token: shown, token_file, _scratch: scratch }
    }

    fn request(&self, request: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let answer = self.admin.say(&format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n{body}",
            self.token
        ));
        parsed(&answer)
    }

    /// Whatever the conductor was asked for by now.
    fn asked(&mut self) -> Option<Ask> {
        eventually(Duration::from_secs(20), || self.asks.try_recv().ok())
    }
}

fn record() -> Record {
    Record {
        epoch: Epoch(1),
        phase: Phase::Stable,
        primary: Appointed {
            server: "a".into(),
            epoch: Epoch(1),
            system: SystemId(1),
            timeline: Timeline(1),
            fork: None,
        },
        promise: Promise::Asynchronous(WeakPromise::NoNames),
        changes: Vec::new(),
    }
}

impl Office {
    /// The binary, asked to do this of whoever answers here.
    fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pgsteer"))
            .args(["--http", &self.admin.address.to_string()])
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Answers previews with this, and orders with that, until nobody asks any more; the orders.
    fn conduct(&mut self, preview: Preview, answer: Result<(), Refusal>) -> Conductor {
        let (_, closed) = mpsc::channel(1);
        let mut asks = std::mem::replace(&mut self.asks, closed);
        let orders = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&orders);
        drop(std::thread::spawn(move || {
            while let Some(ask) = asks.blocking_recv() {
                match ask {
                    Ask::Preview(_, reply) => reply.send(Some(preview.clone())).unwrap(),
                    Ask::Carry(order, reply) => {
                        given.lock().unwrap().push(order);
                        reply.send(answer.clone()).unwrap();
                    }
                }
            }
        }));
        Conductor { orders }
    }
}

struct Conductor {
    orders: Arc<Mutex<Vec<Order>>>,
}

fn preview(loss: Loss, refusal: Option<Refusal>) -> Preview {
    Preview {
        kind: Kind::Failover,
        verdict: Verdict::Dead,
        from: "a".into(),
        to: Some("b".into()),
        loss,
        busy: 3,
        refusal,
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Without `--yes` and without a terminal nothing is ordered, whatever the preview says; with
/// `--dry-run` nothing is, ever.
#[test]
fn a_command_orders_nothing_that_nobody_agreed_to() {
    let mut office = Office::open();
    let conductor = office.conduct(preview(Loss::None, None), Ok(()));

    let (code, out, err) = said(&office.command(&["failover", "--to", "b"]));
    assert_eq!(code, Some(4), "{err}");
    assert!(out.contains("primary     a -> b\n") && err.contains("--yes"), "{out}{err}");
    let (code, out, _) = said(&office.command(&["failover", "--dry-run", "-o", "json"]));
    let shown: PreviewReport = serde_json::from_str(&out).unwrap();
    assert_eq!((code, shown.busy_sessions), (Some(0), 3));
    assert_eq!(said(&office.command(&["switchover", "--dry-run", "--yes"])).0, Some(2));
    assert_eq!(said(&office.command(&["failover", "--abort", "--to", "b"])).0, Some(2));
    assert!(conductor.orders.lock().unwrap().is_empty(), "something was ordered");

    let (code, out, err) = said(&office.command(&["failover", "--to", "b", "--yes"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\ndone"), "{out}");
    let expected = Order::Failover { to: Some("b".into()), accept: MaxLoss::Bytes(0) };
    assert_eq!(*conductor.orders.lock().unwrap(), [expected]);
}

/// What speaks against it ends the command with 4, before or after it was ordered.
#[test]
fn a_command_that_is_refused_ends_with_4() {
    let loss = Loss::AtMost(100);
    let mut office = Office::open();
    let conductor = office.conduct(preview(loss, None), Err(Refusal::PrimaryBack));

    let (code, _, err) = said(&office.command(&["failover", "--yes"]));
    assert_eq!(code, Some(4), "100 bytes would be lost, and none may be");
    assert!(err.contains("--accept-loss 100"), "{err}");
    assert!(conductor.orders.lock().unwrap().is_empty(), "something was ordered");
    let (code, _, err) = said(&office.command(&["failover", "--yes", "--accept-loss", "100B"]));
    assert_eq!((code, err.contains("the primary came back")), (Some(4), true), "{err}");
    assert_eq!(conductor.orders.lock().unwrap().len(), 1);
    let (code, _, err) = said(&office.command(&["failover", "--accept-loss", "100KB"]));
    assert_eq!((code, err.contains("write `kB`")), (Some(2), true), "{err}");

    let mut office = Office::open();
    let conductor = office.conduct(preview(Loss::None, Some(Refusal::NoCandidate)), Ok(()));
    assert_eq!(said(&office.command(&["switchover", "--yes"])).0, Some(4));
    assert!(conductor.orders.lock().unwrap().is_empty(), "something was ordered");
}

/// An order that is begun and waits is not refused: it may be done a moment later.
#[test]
fn a_command_whose_order_is_begun_and_waits_ends_with_5() {
    for refusal in
        [Refusal::NotContinued("the disk is full".into()), Refusal::Waits(Box::new(Why::Freezing))]
    {
        let told = refusal.to_string();
        let mut office = Office::open();
        let _conductor = office.conduct(preview(Loss::None, None), Err(refusal));
        let (code, _, err) = said(&office.command(&["failover", "--yes"]));
        assert_eq!(code, Some(5), "{err}");
        assert!(err.contains(&told) && err.contains("failover --abort"), "{err}");
        assert!(!err.contains("refused"), "{err}");
    }
}

/// Every path that tells or changes something about failovers.
const PATHS: [&str; 9] = [
    "GET /failover",
    "POST /failover",
    "GET /switchover",
    "POST /switchover",
    "POST /abort",
    "GET /orders/1",
    "GET /history",
    "GET /steps",
    "GET /settings",
];

/// Without the token, or with another, nobody is told anything and nothing is handed on.
#[test]
fn without_the_token_nothing_is_answered() {
    let mut office = Office::open();
    let good = office.token.clone();
    for wrong in ["", "nonsense", &good[..good.len() - 1], &good.to_uppercase()] {
        office.token = wrong.to_owned();
        for path in PATHS {
            let (status, body) = office.request(path, "");
            assert_eq!(status, 401, "{path} with {wrong:?}");
            assert!(body.contains(&office.token_file) && !body.contains(&good), "{body}");
        }
    }
    assert!(office.asks.try_recv().is_err(), "an order was handed on");

    office.token = good;
    assert_eq!(office.request("GET /history", ""), (200, "{\"changes\":[]}\n".to_owned()));
}

/// An order reaches the conductor as it was meant, and its end comes back.
#[test]
fn an_order_is_handed_on_and_its_end_is_told() {
    let mut office = Office::open();

    let (status, body) = office.request("POST /failover", r#"{"to": "b", "accept_loss": 4096}"#);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let number = answer["order"].as_str().unwrap();
    let Some(Ask::Carry(order, reply)) = office.asked() else { panic!("nothing was handed on") };
    let expected = Order::Failover { to: Some("b".into()), accept: MaxLoss::Bytes(4096) };
    assert_eq!((status, order), (202, expected));

    let account = || -> AccountReport {
        let (status, body) = office.request(&format!("GET /orders/{number}"), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(account().state, OrderState::Underway);
    reply.send(Err(Refusal::PrimaryLives)).unwrap();
    let refused = eventually(Duration::from_secs(20), || {
        Some(account()).filter(|account| account.state != OrderState::Underway)
    });
    let refused = refused.unwrap();
    assert_eq!(refused.state, OrderState::Refused);
    assert_eq!(refused.refusal, Some(Refusal::PrimaryLives.to_string()));

    assert_eq!(office.request("GET /orders/7", "").0, 404);
    assert_eq!(office.request("GET /orders/x", "").0, 404);
}

/// What is not understood in full orders nothing.
#[test]
fn a_strange_order_is_none() {
    let mut office = Office::open();
    let strange = [
        "nonsense",
        "[]",
        r#"{"to": 7}"#,
        r#"{"too": "b"}"#,
        r#"{"accept_loss": "all"}"#,
        r#"{"accept_loss": -1}"#,
        r#"{"to": "b"}{"to": "c"}"#,
    ];
    for body in strange {
        assert_eq!(office.request("POST /failover", body).0, 400, "{body}");
    }
    assert_eq!(office.request("GET /failover?accept_loss=all", "").0, 400);
    for wrong in ["DELETE /failover", "PUT /abort", "GET /abort", "POST /history"] {
        assert_eq!(office.request(wrong, "").0, 405, "{wrong}");
    }
    assert!(office.asks.try_recv().is_err(), "an order was handed on");

    let (status, _) = office.request("POST /failover", r#"{"accept_loss": "any"}"#);
    let asked = office.asked();
    assert!(
        matches!(asked, Some(Ask::Carry(Order::Failover { to: None, accept: MaxLoss::Any }, _))),
        "{status}: {asked:?}"
    );
}

/// A preview says who, at what loss, and whether so much may be lost.
#[test]
fn a_preview_is_told_with_its_loss() {
    let office = Office::open();
    let Office { admin, mut asks, token, .. } = office;
    let answering = std::thread::spawn(move || {
        let Some(Ask::Preview(order, reply)) = asks.blocking_recv() else {
            panic!("nothing was asked");
        };
        let preview = preview(Loss::AtMost(100), None);
        reply.send(Some(preview)).unwrap();
        order
    });
    let answer = admin.say(&format!(
        "GET /failover?to=b&accept_loss=99 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\n\r\n"
    ));
    let (status, body) = parsed(&answer);
    let preview: PreviewReport = serde_json::from_str(&body).unwrap();

    let order = answering.join().unwrap();
    assert_eq!(order, Order::Failover { to: Some("b".into()), accept: MaxLoss::Bytes(99) });
    assert_eq!((status, preview.to.as_deref(), preview.busy_sessions), (200, Some("b"), 3));
    assert_eq!(preview.loss.at_most_bytes, Some(100));
    assert!(!preview.loss_accepted, "100 bytes are more than 99");
}

/// Where nothing can be recorded the reason is told, whoever asks.
#[test]
fn without_state_the_reason_is_told() {
    let admin = Admin::start();
    for path in PATHS {
        let answer = admin.say(&format!("{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        let (status, body) = parsed(&answer);
        assert_eq!(status, 503, "{path}");
        assert!(body.contains("failover is unavailable: this is a test"), "{body}");
    }
}
