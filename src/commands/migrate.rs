//! `pagehand migrate`.

use anyhow::Context;

use super::Database;
use crate::cli::MigrateArgs;
use crate::config::Config;
use crate::queue::Resealed;

/// Brings the schema up to date; also the roles and the encryption of passwords if that was asked for.
///
/// # Errors
/// Postgres can't be reached, or a migration fails; then nothing of it was done. Or the roles can't be made, or
/// not all passwords can be encrypted anew.
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
        if args.reseal {
            let keys = super::keys(&config)?;
            anyhow::ensure!(keys.current().is_some(), "--reseal needs a key; set secrets.key");
            let resealed = database.queue.clone().with_keys(keys).reseal().await;
            let Resealed { sealed, unreadable } =
                resealed.context("not all passwords were encrypted anew; repeat it")?;
            eprintln!("{sealed} passwords encrypted anew under secrets.key");
            anyhow::ensure!(
                unreadable == 0,
                "{unreadable} passwords could not be read and stay as they are; name their key in secrets.older_keys \
                 (`pagehand doctor` lists the keys)"
            );
        }
        anyhow::Ok(())
    };
    let done = done.await;
    database.close().await;
    done
}
