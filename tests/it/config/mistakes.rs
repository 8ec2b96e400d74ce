//! The mistakes that are made most, each with the whole text that its maker reads.

use crate::config::Said;

#[test]
fn a_misspelt_key_names_its_neighbour() {
    let file = "[servers]\nhosts = [\"db1\"]\n[routing]\nmax_leg = { time = \"1s\" }\n";

    let told = Said { file, ..Said::default() }.told();

    let expected = "\
error: pgsteer.toml:4:1: unknown key `max_leg` in [routing]
 4 | max_leg = { time = \"1s\" }
   | ^^^^^^^
   = help: did you mean `max_lag`?";
    assert_eq!(told, expected);
}
