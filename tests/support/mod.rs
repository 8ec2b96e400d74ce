//! What the tests on real servers share: a house with servers and a proxy in it.

mod door;
mod held;
mod house;
mod inside;
pub mod ledger;
mod prometheus;
mod proxy;
mod quick;
mod seed;
mod template;
mod wire;

pub use door::Door;
pub use held::HeldShard;
pub use held::Slowed;
pub use house::Blueprint;
pub use house::House;
pub use house::await_that;
pub use house::connect;
pub use house::end_backends;
pub use house::proxy;
pub use house::proxy_at;
pub use house::synchronous;
pub use inside::remembers;
pub use prometheus::Prometheus;
pub use prometheus::tool;
pub use proxy::command;
pub use proxy::program;
pub use quick::quickly;
pub use quick::quickly_enough;
pub use seed::Dice;
pub use template::cluster;
pub use wire::Ended;
pub use wire::Reply;
pub use wire::Said;
pub use wire::Wire;
pub use wire::held_for;
