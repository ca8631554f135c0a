/**
 * The transcript's tables. Every row carries its user, and every read is filtered by it (I15).
 * 1. A migration is never changed once it was released; new ones are appended.
 * 2. `entries` is the tree: a thread is the path from its head to a root. `prefix_hash` is null while an answer streams, so that nothing attaches
 *    to half an answer.
 * 3. `threads.based_on` is the epoch that the writer had seen: the trigger refuses growth that was planned on an older state.
 * 4. `entries.revision` is unique and only grows; it orders what watchers see.
 * 5. A count in `answers` that nobody reported is null, not 0. An answer outlives its session there, without any text, so that usage stays true
 *    and a replay does not bring back what was deleted.
 */
export const transcriptMigrations: readonly (readonly string[])[] = [
  [
    `CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID`,
    `CREATE TABLE sessions (
      id TEXT PRIMARY KEY, user_id TEXT NOT NULL, title TEXT NOT NULL, client TEXT NOT NULL,
      created_at REAL NOT NULL, updated_at REAL NOT NULL)`,
    `CREATE INDEX sessions_by_time ON sessions (user_id, updated_at)`,
    `CREATE TABLE threads (
      id TEXT PRIMARY KEY, session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, user_id TEXT NOT NULL,
      head TEXT NOT NULL, epoch INTEGER NOT NULL, based_on INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL)`,
    `CREATE INDEX threads_by_session ON threads (session_id, updated_at)`,
    `CREATE INDEX threads_by_head ON threads (head)`,
    `CREATE TRIGGER threads_grow_from_what_was_seen BEFORE UPDATE OF epoch ON threads
      WHEN NEW.epoch <> OLD.epoch AND NEW.based_on <> OLD.epoch
      BEGIN SELECT RAISE(ABORT, 'stale epoch'); END`,
    `CREATE TABLE entries (
      id TEXT PRIMARY KEY, session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, user_id TEXT NOT NULL,
      parent TEXT, prefix_hash TEXT, role TEXT NOT NULL, body TEXT NOT NULL, labels TEXT NOT NULL,
      answer_id TEXT, revision INTEGER NOT NULL, created_at REAL NOT NULL)`,
    `CREATE INDEX entries_by_prefix ON entries (user_id, prefix_hash, created_at)`,
    `CREATE INDEX entries_by_revision ON entries (session_id, revision)`,
    `CREATE TABLE answers (
      id TEXT PRIMARY KEY, user_id TEXT NOT NULL, client TEXT NOT NULL, task TEXT NOT NULL, target TEXT NOT NULL,
      session_id TEXT, thread_id TEXT, entry_id TEXT, model TEXT, decision TEXT, state TEXT NOT NULL, reason TEXT,
      prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
      error TEXT, text TEXT, started_at REAL NOT NULL, ended_at REAL, absorbed INTEGER NOT NULL)`,
    `CREATE INDEX answers_by_time ON answers (user_id, started_at)`,
    `CREATE INDEX answers_by_session ON answers (session_id) WHERE session_id IS NOT NULL`,
    `CREATE INDEX answers_streaming ON answers (id) WHERE state = 'streaming'`,
    `CREATE INDEX completion_texts ON answers (started_at) WHERE task = 'completion' AND text IS NOT NULL`,
    `CREATE TABLE answer_chunks (
      answer_id TEXT NOT NULL, sequence INTEGER NOT NULL, user_id TEXT NOT NULL, body TEXT NOT NULL,
      PRIMARY KEY (answer_id, sequence)) WITHOUT ROWID`,
  ],
  [
    // The whole hash with user and time took most of the pages that a commit touches: a hash is at a random place in it.
    `CREATE INDEX entries_by_prefix_start ON entries (substr(prefix_hash, 1, 8)) WHERE prefix_hash IS NOT NULL`,
    `DROP INDEX entries_by_prefix`,
  ],
  [
    `CREATE TABLE kept_turns (
      user_id TEXT NOT NULL, call_id TEXT NOT NULL, body TEXT NOT NULL, created_at REAL NOT NULL,
      PRIMARY KEY (user_id, call_id)) WITHOUT ROWID`,
    `CREATE INDEX kept_turns_by_time ON kept_turns (created_at)`,
  ],
];
