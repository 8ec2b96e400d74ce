//! Where a statement would go now, and why, without running it: `pgsteer route`.
//!
//! The answer comes from the very functions that route: `plan` and `decide`. A session that has
//! written nothing is assumed; what a floor would change is a session's own affair.

use crate::admin::Explain;
use crate::clock;
use crate::frontend::{Live, Material, Shared, Wishes, idle_hints, plan};
use crate::route::{Patience, Refusal, Request, RoleWish, Route, decide};
use crate::session::{Anchor, Demand, End, Executes};
use crate::sql::{Dialect, NeedsPrimary, examine, explain};
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers for the proxy that these are of.
pub(super) fn explainer(shared: &Arc<Shared>, live: &Arc<ArcSwap<Live>>) -> Explain {
    let shared = Arc::clone(shared);
    let live = Arc::clone(live);
    Box::new(move |database, sql| answer(&shared, &live.load(), database, sql))
}

fn answer(shared: &Shared, live: &Live, database: &str, sql: &str) -> Value {
    let topology = shared.board.load();
    let facts = Arc::new(examine(sql.as_bytes(), Dialect::default()));
    let catalog = topology.catalog(database).map(|catalog| &**catalog);
    let now = clock::now();
    if catalog.is_none() {
        shared.signals.want_catalog(&Arc::from(database), now);
    }
    let mentioned = [Some(Arc::clone(&facts))];
    let planned = plan(&Material {
        mentioned: &mentioned,
        catalog,
        wishes: Wishes { role: RoleWish::Auto, consistency: live.routing.consistency },
        end: End::Query,
        executes: Executes::Something,
        now,
    });
    let route = decide(
        now,
        &Request {
            need: planned.need,
            consistency: planned.consistency,
            demand: Demand::Nothing,
            anchor: Anchor::Nowhere,
            since: now,
            failed: 0,
            load: &[],
            turn: 0,
            patience: Patience::None,
        },
        &topology,
        &live.routing,
    );
    let judgement = facts.judge(catalog);
    let mut why = explain(&facts, judgement, catalog);
    if judgement.fit == Err(NeedsPrimary::CatalogUnknown) {
        let database = database.escape_debug();
        why.push(format!(
            "they are being read, if pgsteer's user can connect to the database \"{database}\": \
             ask again in a moment"
        ));
    }
    why.extend(idle_hints(&facts).iter().map(|hint| format!("not known, so ignored: {hint}")));
    let (target, server) = match route {
        Route::Go { server, why: reason, .. } => {
            why.push(format!("routed as: {}", reason.as_str()));
            let primary = topology.writable() == Some(server);
            let name = topology.server(server).map(|server| server.name.to_string());
            (if primary { "primary" } else { "standby" }, name)
        }
        Route::Wait { .. } => {
            why.push("no server qualifies now: the statement would be held".to_owned());
            ("held", None)
        }
        Route::Refuse(refusal) => {
            why.push(refused(refusal).to_owned());
            ("refused", None)
        }
    };
    json!({ "target": target, "server": server, "why": why })
}

const fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoPrimary(_) => "there is no primary",
        Refusal::NoStandby => "no standby qualifies",
        Refusal::NoServer => "no server can be reached",
        Refusal::NotVisible => "the primary does not show yet what the session has seen",
    }
}
