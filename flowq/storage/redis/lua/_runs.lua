-- Nodes of runs, as this script has read and changed them. c:<run> holds 32 bytes a node:
--   state 1, generation 1, flags 1, lane 1, parents 4, A 4, since 6, B 4, C 4, D 4, mode 2
-- A to D count parents that succeeded, failed, were skipped, were cancelled; in an expansion that has
-- begun: inner nodes unfinished, failures, skips, cancels (unforgiven or named), and `parents` is the
-- culprit. `since` is when it first might run (ms); while it waits, its culprit + 1. `mode` is of an
-- expansion, 0 unless something is unusual (_phases.lua); of what waits, 1 if it is blocked from the
-- start. flags: 1 a rule of its own, 2 expansion,
-- 4 join, 8 delayed or expiring, 16 inner nodes ended before it began, 32 more in its row (_rows.lua),
-- 64 of a later phase, 128 the failure of a node inside it may stop others.
-- What changed is written by flush_runs, after all that could fail.
local runs, touched = {}, {}

local function run_of(id)
  local r = runs[id]
  if not r then
    r = {id = id, c = P .. 'c:' .. id, n = P .. 'n:' .. id, v = P .. 'v:' .. id,
         nodes = {}, dirty = {}, rows = {}, cells = {}, done = {}}
    runs[id] = r
    touched[#touched + 1] = r
  end
  return r
end

local function read_node(r, i, raw, at)
  local state, gen, flags, lane, n, a, ready, b, c, d, mode = unpack_('>BBBBI4I4I6I4I4I4H', raw, at)
  local x = {i = i, state = state, gen = gen, flags = flags, lane = lane, n = n, a = a,
             ready = ready, b = b, c = c, d = d, mode = mode}
  r.nodes[i] = x
  return x
end

-- The node, or nil if the run is gone.
local function node(r, i)
  local x = r.nodes[i]
  if x then return x end
  local raw = call('GETRANGE', r.c, i * 32, i * 32 + 31)
  if #raw < 32 then return nil end
  return read_node(r, i, raw, 1)
end

-- Reads neighbours at once.
local function read_nodes(r, first, count)
  local raw = call('GETRANGE', r.c, first * 32, (first + count) * 32 - 1)
  for k = 0, math.floor(#raw / 32) - 1 do
    if not r.nodes[first + k] then read_node(r, first + k, raw, k * 32 + 1) end
  end
end

local function dirty(r, x)
  if not x.dirty then
    x.dirty = true
    r.dirty[#r.dirty + 1] = x
  end
end

-- A node's row; without its message if that is large, so that not all that a page reads is kept.
local function row_of(r, i)
  local row = r.rows[i]
  if row == nil then
    row = call('HGET', r.n, pack('>I4', i))
    if row and #row > 4096 then row = sub(row, 1, offset_of(row)) end
    r.rows[i] = row
  end
  return row
end

-- The queues and priorities that a run began with.
local function lanes_of(r)
  if not r.lanes then
    local raw = call('HGET', r.n, 'q')
    local at, lanes = 1, {}
    while at <= #raw do
      local n, priority = byte(raw, at), (unpack_('>h', raw, at + 1))
      lanes[#lanes + 1] = {sub(raw, at + 3, at + 2 + n), priority}
      at = at + 3 + n
    end
    r.lanes = lanes
  end
  return r.lanes
end

-- Queue and priority of a node: by its lane, a number of the run's table, or by its row.
local function lane_of(r, x)
  if x.lane == 255 then return queue_of('', row_of(r, x.i)) end
  local lane = lanes_of(r)[x.lane + 1]
  return lane[1], lane[2]
end

-- Whether a run ended so long ago that it is gone, though not removed yet; `state` is a node's.
local past_runs = {}
local function is_past(run, state)
  if state < SUCCESS then return false end
  if past_runs[run] == nil then
    local till = call('ZSCORE', P .. 'x', 'r' .. run)
    past_runs[run] = till and tonumber(till) <= now or false
  end
  return past_runs[run]
end

local function write_node(x)
  x.dirty = nil
  return pack('>BBBBI4I4I6I4I4I4H', x.state, x.gen, x.flags, x.lane, x.n, x.a, x.ready, x.b, x.c, x.d,
              x.mode)
end

-- Field 'V' of n:<run> is another number once something of it has moved: what a script has changed, or
-- what it says has `moved`.
local function flush_runs()
  for _, r in ipairs(touched) do
    if r.moved or #r.dirty + #r.done > 0 then
      r.moved = nil
      call('HINCRBY', r.n, 'V', 1)
      tell(r.id .. 'm')
    end
    for _, i in ipairs(r.done) do call('SETRANGE', r.c, i * 32, string.char(SUCCESS)) end
    local d = r.dirty
    local k = 1
    while k <= #d do -- neighbours in one write
      local x, last = d[k], k
      while last < #d and d[last + 1].i == d[last].i + 1 do last = last + 1 end
      if last == k then
        call('SETRANGE', r.c, x.i * 32, write_node(x))
      else
        local parts = {}
        for j = k, last do parts[#parts + 1] = write_node(d[j]) end
        call('SETRANGE', r.c, x.i * 32, table.concat(parts))
      end
      k = last + 1
    end
    if #r.cells > 0 then many('HSET', r.v, r.cells) end
    if r.kept then
      many('HSET', r.n, r.kept)
      r.kept = nil
    end
    if r.places then
      for _, o in ipairs(r.places) do
        call('HSET', r.n, 'm' .. pack('>I4', o.i), pack('>I4I4', o.places[1], o.places[2]))
        o.places.changed = nil
      end
      r.places = nil
    end
    if r.held then
      many('RPUSH', P .. 'b:' .. r.id, r.held)
      r.held = nil
    end
    if r.ended then
      if r.paused then
        call('HDEL', r.n, 'P')
        call('SREM', P .. 'paused', r.id)
        call('UNLINK', P .. 'b:' .. r.id)
      end
      for _, key in ipairs({r.c, r.n, r.v}) do call('PEXPIRE', key, r.ended + 3600000) end
      call('ZADD', P .. 'x', now + r.ended, 'r' .. r.id)
      call('SREM', P .. 'active', r.id)
    end
    r.dirty, r.cells, r.done, r.ended = {}, {}, {}, nil
  end
end
