//! `pagehand migrate`.

use anyhow::Context;

use super::Database;
use crate::cli::MigrateArgs;
use crate::config::Config;

/// Brings the schema up to date, and the roles if that was asked for.
///
/// # Errors
/// Postgres can't be reached, or a migration fails; then nothing of it was done. Or the roles can't be made.
pub async fn run(config: Config, args: MigrateArgs) -> anyhow::Result<()> {
    let database = Database::open_unchecked(&config).await?;
    let done = async {
        database.queue.migrate().await.context("the schema can't be brought up to date")?;
        eprintln!("the schema is up to date");
        if args.roles {
            let hint = "the roles can't be made; connect as the owner of the tables, who may also make roles";
            database.queue.grant_roles().await.context(hint)?;
            eprintln!(
                "pagehand_worker and pagehand_web have their rights; give them to users: GRANT pagehand_web TO …"
            );
        }
        anyhow::Ok(())
    };
    let done = done.await;
    database.close().await;
    done
}
