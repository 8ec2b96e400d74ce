//! What is to become of the idle backends in a database.

use super::Fold;
use crate::clock::Moment;
use crate::sql::Catalog;
use std::sync::Arc;
use std::time::Duration;

/// How long shards are told that backends are to be renewed; they look every second.
const TOLD_FOR: Duration = Duration::from_mins(1);
/// Most roles of which that is told one by one.
const ROLES_MAX: usize = 256;

/// Whether somebody waits for a database to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// Somebody does.
    Wanted,
    /// Nobody does, or no more.
    NotWanted,
}

impl Fold {
    /// Puts a database's catalog up, or takes it down because it changed.
    pub(crate) fn set_catalog(&mut self, database: &Arc<str>, catalog: Option<Arc<Catalog>>) {
        match catalog {
            Some(catalog) => {
                self.catalogs.insert(Arc::clone(database), catalog);
            }
            None => {
                self.catalogs.remove(database);
            }
        }
    }

    /// A database is to be left, or need not be any more.
    pub(crate) fn vacate(&mut self, database: &Arc<str>, vacancy: Vacancy) {
        match vacancy {
            Vacancy::Wanted => self.vacated.insert(Arc::clone(database)),
            Vacancy::NotWanted => self.vacated.remove(database),
        };
    }

    /// Sessions of these roles (`""`: of all) begin with other settings in this database than they
    /// did until then.
    pub(crate) fn renew(&mut self, database: &Arc<str>, roles: Vec<Box<str>>, at: Moment) {
        let many = self.renewed.len() + roles.len() > ROLES_MAX;
        let roles = if many { vec!["".into()] } else { roles };
        for role in roles {
            let last = self.renewed.entry((Arc::clone(database), role)).or_insert(at);
            *last = at.max(*last);
        }
    }

    /// Tells no more what every shard has heard.
    pub(super) fn forget_renewed(&mut self, now: Moment) {
        self.renewed.retain(|_, at| now.since(*at) < TOLD_FOR);
    }
}
