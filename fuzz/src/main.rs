//! Writes the bytes that the targets begin with: `seeds DIRECTORY` makes a directory a target.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let into = std::env::args().nth(1).unwrap_or_else(|| "corpus".to_owned());
    for (target, seeds) in pgsteer_fuzz::seeds() {
        let place = Path::new(&into).join(target);
        std::fs::create_dir_all(&place)?;
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(place.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
