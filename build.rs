//! A new migration has to be noticed by `sqlx::migrate!`.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
