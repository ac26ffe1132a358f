-- The tables of a store, made in one transaction when the file is new.
--
-- Rows that change (message, expansion) lie apart from what is fixed at the start (plan), so that a
-- step rewrites tens of bytes. The nodes of a run have consecutive ids: index = id - run.base.
-- Ids come from store.next_id and are never given twice, or a late settlement could hit a stranger.

CREATE TABLE store(
    one INTEGER PRIMARY KEY CHECK(one = 1),
    app TEXT NOT NULL,
    layout INTEGER NOT NULL,
    tick INTEGER NOT NULL,      -- goes up with each change; orders what is queued by different ones
    next_id INTEGER NOT NULL,   -- of message
    seen_ms INTEGER NOT NULL    -- when a session last renewed or stepped
);

CREATE TABLE queue(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    ready INTEGER NOT NULL      -- how many messages are queued in it
);

CREATE TABLE message(
    id INTEGER PRIMARY KEY,
    uuid BLOB,                  -- of a task alone; a node is named by its run and index
    run INTEGER,                -- run.id of a node
    state INTEGER NOT NULL,
    flags INTEGER NOT NULL,     -- kind, bits, the phase in which it runs, and more; see rows.py
    queue INTEGER NOT NULL,
    prio INTEGER NOT NULL,
    rank INTEGER NOT NULL,      -- order within the priority; below 0: before what was enqueued
    due_ms INTEGER,             -- scheduled: when; running: since when; waiting: what goes along
                                -- might begin, were there a place
    ready_ms INTEGER,           -- when it first might run
    expires_ms INTEGER,         -- fails if it was not begun by then
    forget_ms INTEGER,          -- ended: when the row may go (a node goes with its run)
    session INTEGER,
    delivery INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    unknown_ms INTEGER,         -- when a worker first did not know its task
    keep_ms INTEGER,            -- how long it is remembered, where that is not the default
    failed_keep_ms INTEGER,
    owner INTEGER,              -- message.id of the expansion in whose body it stands
    parents INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    gate INTEGER,               -- held: gate.id of the limit that has no room, if that is why
    rule BLOB,                  -- five numbers; NULL: all parents must succeed
    culprit INTEGER,            -- index of whom to blame if it is blocked
    cell BLOB                   -- what it came to
);
CREATE UNIQUE INDEX message_uuid ON message(uuid) WHERE uuid IS NOT NULL;
CREATE INDEX message_ready ON message(queue, prio DESC, rank) WHERE state = 3 AND losses = 0;
CREATE INDEX message_alone ON message(queue, prio DESC, rank) WHERE state = 3 AND losses > 0;
CREATE INDEX message_due ON message(due_ms) WHERE state = 1;
CREATE INDEX message_able ON message(owner) WHERE state = 0 AND due_ms IS NOT NULL;
CREATE INDEX message_held ON message(run) WHERE state = 2;
CREATE INDEX message_gate ON message(gate, prio DESC, rank) WHERE state = 2 AND gate IS NOT NULL;
CREATE INDEX message_session ON message(session) WHERE session IS NOT NULL;
CREATE INDEX message_expires ON message(expires_ms) WHERE expires_ms IS NOT NULL AND state < 4;
CREATE INDEX message_forget ON message(forget_ms) WHERE forget_ms IS NOT NULL;

CREATE TABLE plan(              -- never updated
    id INTEGER PRIMARY KEY,     -- message.id
    name TEXT,
    task TEXT,
    parents BLOB,               -- edges are packed ranges, see rows.py
    children BLOB,
    lenient BLOB,               -- edges out along which any end counts as a success
    reads BLOB,
    followers BLOB,             -- edges out along which it counts once it is expanded
    follows BLOB,
    entries BLOB,
    inside BLOB,                -- all nodes in an expansion's body, those of later phases too
    value BLOB,                 -- template of an expansion's value
    tolerate INTEGER NOT NULL DEFAULT 0, -- failures in it that do not count
    later BLOB,                 -- what runs after its body, by index: list of flowq.plan.Later
    owns BLOB,                  -- what a race stops once it is decided
    sleep_ms INTEGER,           -- how long a join sleeps, or waits for what is sent
    signal TEXT,                -- under which name that is sent
    limits BLOB,                -- keys, each with how many places there are
    blocked BLOB,               -- why a node is blocked that never begins: a failure
    body BLOB                   -- last, so that large ones are not read for the rest
);

CREATE TABLE expansion(         -- what changes of it beside its message row
    id INTEGER PRIMARY KEY,     -- message.id
    turn INTEGER NOT NULL DEFAULT 0,  -- whose it is: 0 its body's, k the k-th group's of plan.later
    unfinished INTEGER NOT NULL,      -- of those whose turn it is
    failures INTEGER NOT NULL DEFAULT 0,
    cancels INTEGER NOT NULL DEFAULT 0,
    skips INTEGER NOT NULL DEFAULT 0,
    culprit INTEGER,
    need INTEGER NOT NULL DEFAULT 0,  -- so many successes in its body are enough
    won INTEGER NOT NULL DEFAULT 0,   -- how many there are, where it has a need
    most INTEGER NOT NULL DEFAULT 0,  -- so many of its body may be under way
    under INTEGER NOT NULL DEFAULT 0, -- how many are, where it has that
    after INTEGER NOT NULL DEFAULT 0, -- message.id of the last entry before which none waits
    deadline_ms INTEGER NOT NULL DEFAULT 0, -- how long its body may take
    due_ms INTEGER,                   -- when that is over, while it runs
    marks INTEGER NOT NULL DEFAULT 0, -- stopped, closing, forbidden phases; see rows.py
    outcome INTEGER                   -- once it is fixed: how it ends
);
CREATE INDEX expansion_due ON expansion(due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE run(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid BLOB UNIQUE,           -- NULL: given up, its rows are being removed
    base INTEGER NOT NULL,      -- message.id of its root
    nodes INTEGER NOT NULL,     -- how many rows, the root included
    name TEXT NOT NULL,
    live INTEGER NOT NULL,      -- 0 while its pages arrive
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0, -- 1: nothing more of it is handed out
    changes INTEGER NOT NULL DEFAULT 0, -- goes up when the state of a node changes
    request BLOB,               -- what park was asked for, until that is done
    forget_ms INTEGER,
    keep_ms INTEGER NOT NULL,
    failed_keep_ms INTEGER NOT NULL
);
CREATE INDEX run_forget ON run(forget_ms) WHERE forget_ms IS NOT NULL;
CREATE INDEX run_paused ON run(paused) WHERE paused = 1;
CREATE INDEX run_open ON run(id) WHERE live = 1 AND ended_ms = 0;

CREATE TABLE growth(            -- fragments that nodes became, see growth.py
    first INTEGER PRIMARY KEY,  -- message.id before that of its first node
    run INTEGER NOT NULL,
    count INTEGER NOT NULL,     -- its rows, row 0 included
    live INTEGER NOT NULL DEFAULT 0,   -- 0 while its pages arrive
    done INTEGER NOT NULL DEFAULT 0,   -- how many inner rows are stored
    node INTEGER NOT NULL,      -- message.id of what becomes it
    delivery INTEGER NOT NULL
);
CREATE INDEX growth_run ON growth(run);
CREATE INDEX growth_node ON growth(node);
CREATE INDEX growth_open ON growth(first) WHERE live = 0;

CREATE TABLE along(             -- nodes that go along with those of another expansion, see along.py
    leader INTEGER NOT NULL,    -- message.id of that
    own INTEGER NOT NULL,       -- message.id of the first that goes along
    first INTEGER NOT NULL,     -- and with which
    count INTEGER NOT NULL,
    PRIMARY KEY(leader, own)
) WITHOUT ROWID;
CREATE INDEX along_own ON along(own);

CREATE TABLE gate(              -- limits under which something is, see limits.py
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,       -- 0: of the whole store
    key TEXT NOT NULL,
    UNIQUE(run, key)
);

CREATE TABLE place(             -- nodes that are queued or running under them
    gate INTEGER NOT NULL,
    node INTEGER NOT NULL,      -- message.id
    PRIMARY KEY(gate, node)
) WITHOUT ROWID;

CREATE TABLE sent(              -- to runs, see signals.py
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    recipient TEXT NOT NULL,    -- name of a node, or of what is around it; empty: anyone
    key TEXT NOT NULL,
    who TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    node INTEGER,               -- message.id of what has taken it
    body BLOB NOT NULL
);
CREATE INDEX sent_run ON sent(run);
CREATE INDEX sent_kept ON sent(run, name) WHERE node IS NULL;
CREATE INDEX sent_key ON sent(run, key) WHERE key <> '';

CREATE TABLE started(           -- what bodies have started
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner INTEGER NOT NULL,     -- run.id; of a task alone -message.id
    parent BLOB NOT NULL,       -- whose body did: 16 or 20 bytes
    child BLOB NOT NULL         -- task or run, 16 bytes
);
CREATE INDEX started_owner ON started(owner);
CREATE INDEX started_child ON started(child);

CREATE TABLE awaiting(          -- joins that wait for what is sent
    node INTEGER PRIMARY KEY,   -- message.id
    run INTEGER NOT NULL,
    signal TEXT NOT NULL,
    since_ms INTEGER NOT NULL
);
CREATE INDEX awaiting_signal ON awaiting(run, signal, since_ms);

CREATE TABLE parked(            -- nodes whose end nobody is to see, see parks.py
    node INTEGER PRIMARY KEY,   -- message.id
    run INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, -- how it ended; 0: it has not
    culprit INTEGER,
    cell BLOB
);
CREATE INDEX parked_run ON parked(run);

CREATE TABLE rewind(            -- runs whose nodes are made to wait again, see rewind.py
    run INTEGER PRIMARY KEY,
    chosen BLOB,                -- packed ranges
    reopened BLOB,
    dropped BLOB
);

CREATE TABLE session(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    deadline_ms INTEGER NOT NULL,
    info BLOB                   -- SessionInfo, once it was opened
);
CREATE INDEX session_deadline ON session(deadline_ms);

CREATE TABLE walk(              -- ends whose edges are not all counted yet
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node INTEGER NOT NULL,      -- message.id
    state INTEGER NOT NULL,     -- how it ended; or what is walked instead, see rows.py
    culprit INTEGER,            -- where it has expanded: 1 if it was enqueued, 0 if a settlement let it,
                                -- where the nodes of a turn are walked: which
    position INTEGER NOT NULL   -- how many edges are counted
);

CREATE INDEX walk_node ON walk(node);

CREATE TABLE loss(
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    record BLOB NOT NULL,       -- Loss
    PRIMARY KEY(message, number)
) WITHOUT ROWID;

CREATE TABLE dead(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid BLOB NOT NULL UNIQUE,  -- of the task or node, 16 or 20 bytes
    reason TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    run INTEGER,                -- of a node, which is kept as long as its run
    forget_ms INTEGER,          -- of a task alone: when it may go
    losses BLOB NOT NULL,       -- list of Loss
    body BLOB NOT NULL
);
CREATE INDEX dead_run ON dead(run) WHERE run IS NOT NULL;
CREATE INDEX dead_forget ON dead(forget_ms) WHERE forget_ms IS NOT NULL;

CREATE TABLE cache(             -- results that stand for equal calls
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,   -- 16 bytes: says what was called, and with what
    forget_ms INTEGER NOT NULL,
    value BLOB NOT NULL         -- last, since it may be large
);
CREATE INDEX cache_forget ON cache(forget_ms);
