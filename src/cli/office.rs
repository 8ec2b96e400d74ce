//! Asking the running proxy as somebody who may order: with the token that it wrote where only
//! who runs it can read it. Where that is, the proxy says itself.

use crate::admin::StatusReport;
use crate::cli::args::Globals;
use crate::cli::ask;
use crate::cli::ask::{Answer, AskError, Question};
use crate::cli::exit::Exit;
use crate::cli::load;
use crate::cli::say;
use crate::cli::say::Color;
use crate::config::Loaded;
use crate::store::Token;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(5);

/// The running proxy, and the right to order.
#[derive(Debug)]
pub struct Office {
    address: SocketAddr,
    token: Token,
    token_file: PathBuf,
    color: Color,
    /// What it said of itself.
    pub status: StatusReport,
}

impl Office {
    /// Finds the proxy of this command line, and its token. What is missing is said.
    pub fn find(globals: &Globals) -> Result<Self, Exit> {
        let request = load::request(globals)?;
        let color = globals.color.for_stderr();
        let address = ask::address(&request).map_err(|error| failed(&error, color))?;
        Self::at(address, color)
    }

    /// The proxy at this address.
    pub fn at(address: SocketAddr, color: Color) -> Result<Self, Exit> {
        let answer = ask::ask(address, Question::get("/status"), WAIT);
        let answer = answer.map_err(|error| failed(&error, color))?;
        let status: StatusReport = read(&answer)?;
        let Some(token_file) = status.failover.token_file.as_deref().map(PathBuf::from) else {
            let why = status.failover.unavailable.as_deref().unwrap_or("it keeps no state");
            say::talk(&format!("error: failover is unavailable: {why}"));
            return Err(Exit::Failed);
        };
        // Whatever answered named a file: only what is a token is taken from it.
        let token = Token::read(&token_file).map_err(|error| {
            say::talk(&format!(
                "error: {error}; run this on pgsteer's machine, as the user that runs pgsteer"
            ));
            Exit::Refused
        })?;
        Ok(Self { address, token, token_file, color, status })
    }

    /// Asks for something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Exit> {
        read(&self.answer(path, None)?)
    }

    /// The same, and what is said is left to the caller.
    pub fn try_get(&self, path: &str) -> Result<Answer, AskError> {
        ask::ask(self.address, self.question(path, None), WAIT)
    }

    /// Orders something; the number of the order.
    pub fn order(&self, path: &str, body: &serde_json::Value) -> Result<String, Exit> {
        #[derive(serde::Deserialize)]
        struct Given {
            order: String,
        }
        let given: Given = read(&self.answer(path, Some(body.to_string()))?)?;
        Ok(given.order)
    }

    /// Its servers, and what is planned for them, as a configuration file. Only from one that runs
    /// as our own user: where it leads us, we log in with our passwords, and read what it names.
    pub fn settings(&self) -> Result<String, Exit> {
        Token::read_own(&self.token_file).map_err(|_| {
            say::talk("error: the pgsteer there is another user's: run this as that user");
            Exit::Refused
        })?;
        self.text("/settings")
    }

    /// The text of an answer that is good.
    pub fn text(&self, path: &str) -> Result<String, Exit> {
        Ok(self.answer(path, None)?.body)
    }

    fn answer(&self, path: &str, body: Option<String>) -> Result<Answer, Exit> {
        let answer = ask::ask(self.address, self.question(path, body), WAIT);
        let answer = answer.map_err(|error| failed(&error, self.color))?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        say::talk(&format!("error: {}", answer.body.trim()));
        Err(Exit::Failed)
    }

    fn question(&self, path: &str, body: Option<String>) -> Question {
        Question { path: path.to_owned(), body, token: Some(self.token.clone()) }
    }
}

/// The configuration that the command line asks for; where nobody named a server, that of the
/// pgsteer that runs. Passwords are not told: they are where this command finds its own.
pub fn configuration(globals: &Globals) -> Result<Loaded, Exit> {
    let request = load::request(globals)?;
    if load::names_a_server(&request) {
        return load::checked(globals).map(|(_, loaded)| loaded);
    }
    let color = globals.color.for_stderr();
    let address = ask::address(&request).map_err(|error| failed(&error, color))?;
    if let Err(AskError::Unreachable { .. }) = ask::ask(address, Question::get("/livez"), WAIT) {
        say::report(&load::nobody_runs(address), color);
        return Err(Exit::Config);
    }
    let help = |exit| {
        say::talk("no server is named: name each with --server HOST, or a file with -c FILE");
        exit
    };
    let told = Office::at(address, color).and_then(|office| office.settings());
    let told = told.map_err(help)?;
    say::talk(&format!("no server is named: going to those of the pgsteer on http://{address}"));
    match request.load_text(&format!("http://{address}/settings"), told) {
        Ok(loaded) => {
            say::report(&loaded.warnings, color);
            Ok(loaded)
        }
        Err(report) => {
            say::report(&report, color);
            Err(Exit::Config)
        }
    }
}

/// Reads an answer; one that is no answer is said.
pub fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Exit> {
    if !(200..300).contains(&answer.status) {
        let Answer { status, body } = answer;
        say::talk(&format!("error: the proxy answered {status}: {}", body.trim()));
        return Err(Exit::Failed);
    }
    serde_json::from_str(&answer.body).map_err(|error| {
        say::talk(&format!("error: the answer is not understood: {error}"));
        Exit::Failed
    })
}

/// Says why nothing came back.
pub fn failed(error: &AskError, color: Color) -> Exit {
    match error {
        AskError::Wrong(report) => {
            say::report(report, color);
            Exit::Config
        }
        AskError::TooLate { .. } => {
            say::talk(&format!("error: {error}"));
            Exit::TimedOut
        }
        AskError::Unreachable { .. } | AskError::Strange { .. } | AskError::Off => {
            say::talk(&format!("error: {error}"));
            Exit::Failed
        }
    }
}
