//! Where each statement runs, in the servers' own words, and what an operator and a client may
//! choose about it.

mod isolation;
mod policy;
mod sessions;
mod settings;
mod table;
mod wishes;

use crate::statements;
use crate::support::Blueprint;
use crate::support::House;

/// A house in which the table's statements have what they speak of, and where nothing but what
/// they are decides where they go.
fn furnished() -> House {
    let house = Blueprint::new().unhurried().any_lag().build();
    let mut primary = house.server("primary").connect("postgres").unwrap();
    for sql in statements::SETUP {
        primary.rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    house.await_catalog();
    house
}
