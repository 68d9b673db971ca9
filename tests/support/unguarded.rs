//! Takes guards out of the schema of a test's database, so that it can be seen which test notices.

use sqlx::{AssertSqlSafe, PgConnection};

/// `function:::text:::text in its place`, each pair of them applied to every function of that name; more than one with
/// `;;;` between them.
pub const VARIABLE: &str = "UNGUARDED_SQL";

/// Does what [`VARIABLE`] says, if it says anything.
pub async fn take_out(connection: &mut PgConnection) {
    for change in std::env::var(VARIABLE).unwrap_or_default().split(";;;").filter(|change| !change.is_empty()) {
        let mut parts = change.split(":::");
        let (Some(function), Some(from), Some(to)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("{VARIABLE} can't be read: {change}");
        };
        let definitions: Vec<String> =
            sqlx::query_scalar("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1 AND prokind = 'f'")
                .bind(function)
                .fetch_all(&mut *connection)
                .await
                .expect("postgres answers");
        let changed: Vec<String> = definitions.iter().filter(|text| text.contains(from)).cloned().collect();
        assert!(!changed.is_empty(), "no function {function} contains {from}");
        for definition in changed {
            let changed = AssertSqlSafe(definition.replace(from, to));
            sqlx::raw_sql(changed).execute(&mut *connection).await.expect("the function can be written so");
        }
    }
}
