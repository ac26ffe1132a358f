#!lua
-- step: settle outcomes, move one page on, take back, queue what is due, hand out.
-- Keys    1 sessions (zset session -> deadline, ms)
-- Args    1 now  2 session  3 lease, ms  4 want  5 bytes of values  6 outcomes  7 queues
--         then the queues, "b", the ids, for each its delivery and kind, for each its data
-- Gives   verdicts (one letter each), ready, alone, ms to the next moment or -1, stops,
--         ids, rows, more: {place, delivery, attempt, losses, complete, values} where not 1, 0, 0,
--         1 if nobody has opened the session; or only a run that is made to run again, nothing done
-- Cost    O(outcomes + want); one page of edges
-- Repeat  safe: a settlement is fenced by its delivery
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _phases
-- @include _extras
-- @include _along
-- @include _limits
-- @include _parks
-- @include _back
-- @include _grow
-- @include _settle
-- @include _hand
local SOON = 3000
local UNOPENED = 80
local me, lease_ms, want = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local n, nq = tonumber(ARGV[6]), tonumber(ARGV[7])
if call('EXISTS', P .. 'again') == 1 then return {call('SRANDMEMBER', P .. 'again')} end
local w, stops_key = P .. 'w:' .. me, P .. 'z:' .. me
local at = 8 + nq -- where "b" stands, the ids behind it
local held = call('HMGET', w, unpack(ARGV, at, at + n))
local burden = held[1]
close_gap(math.floor(lease_ms / 3))
if call('ZADD', P .. 'L', now + lease_ms, me) == 1 then
  call('HSETNX', w, 'i', string.rep('\0', UNOPENED))
end
for q = 1, nq do served[ARGV[7 + q]] = false end

local verdicts, singles = {}, {}
if n > 0 then
  local extra = call('EXISTS', P .. 'd', P .. 'e', P .. 'h') > 0
  local gone, seen = {}, {}
  for k = 1, n do
    local id, lease = ARGV[at + k], held[k + 1]
    local meta = ARGV[at + n + k]
    if not lease or seen[id] or sub(lease, 1, 4) ~= sub(meta, 1, 4) then
      flush_runs()
      flush_ended()
      verdicts[k] = past(id, meta)
    else
      verdicts[k] = 's'
      gone[#gone + 1] = id
      seen[id] = true
      if id == burden then
        call('HDEL', w, 'b')
        burden = false
      end
      local data = ARGV[at + n + n + k]
      if lease == meta then
        keep(id, SUCCESS, meta, data, DAY)
        tell(id)
        singles[#singles + 1] = id
        if extra then forget(id) end
      elseif #id == 20 and byte(meta, 5) == 0 and byte(lease, 5) % 32 < 16 and byte(lease, 5) < 128 then
        done_node(id, lease, meta, data)
        if extra then forget(id) end
      else
        if has(byte(lease, 5), 16) then call('SREM', stops_key, id) end
        try(id, settle_other, id, lease, meta, data)
      end
    end
  end
  if #gone > 0 then call('HDEL', w, unpack(gone)) end
end
walk()
leave()
if #singles > 0 then call('HDEL', P .. 'm', unpack(singles)) end
page = PAGE -- one more, so that what earlier steps left goes on where each step leaves more
local resumed = resume()
if resumed > 0 then walk() end
local deadlines = call('ZRANGE', P .. 'L', 0, 1, 'WITHSCORES')
if tonumber(deadlines[2]) <= now then
  take_back()
  deadlines = call('ZRANGE', P .. 'L', 0, 1, 'WITHSCORES')
end
walk()
local over = leave() -- before what is due is looked at: some of that may have ended
local due = call('ZRANGE', P .. 's', 0, 0, 'WITHSCORES')[2]
if due and tonumber(due) <= now then
  queue_due(1000)
  over = over + leave()
  due = call('ZRANGE', P .. 's', 0, 0, 'WITHSCORES')[2]
end
local pages = over > 0 or resumed >= PAGE -- are left, or may be

local ids, rows, more = {}, {}, {}
local lists, ghosts = {}, {}
local function survey()
  lists = {}
  for q = 1, nq do ghosts[ARGV[7 + q]] = lists_of(ARGV[7 + q], q, lists) end
  if #lists > 1 then table.sort(lists, better) end
end
survey()

if want > 0 and not burden and #lists > 0 then
  if want > 1 then
    local ready = 0
    for _, list in ipairs(lists) do ready = ready + size_of(list) end
    for _, count in pairs(ghosts) do ready = ready - count end
    local live = call('ZCOUNT', P .. 'L', '(' .. now, '+inf')
    want = math.max(1, math.min(want, math.ceil(ready / math.max(1, live))))
  end
  local holds -- how many messages the session has; asked only where that matters
  local function idle()
    holds = holds or call('HLEN', w) - 1
    return holds == 0
  end
  local chosen = choose(lists, ghosts, want, idle)
  local spent, again = 0, #chosen > 0 and call('EXISTS', P .. 'd', P .. 'e', P .. 'paused') > 0
  local paused = again and call('EXISTS', P .. 'paused') == 1 and {}
  while again or pages and #chosen > 0 do
    local late = fail_late(chosen, want, pages, paused)
    if late == 0 then break end
    spent = spent + late
    survey()
    -- more than are wanted, for many may be held
    chosen = spent < 1000 and choose(lists, ghosts, paused and math.max(want, AT_ONCE) or want, idle) or {}
    if #chosen == 0 then break end
  end
  while #chosen > want do
    local one = table.remove(chosen)
    put_back(one[3], {one[1]}, 1)
  end
  if spent > 0 then due = call('ZRANGE', P .. 's', 0, 0, 'WITHSCORES')[2] end
  local fields, again_from, burdens
  local function prepare()
    local budget = {tonumber(ARGV[5]), false}
    ids, rows, more, fields, again_from, burdens = {}, {}, {}, {}, {}, {}
    for k, one in ipairs(chosen) do
      local id, row, list = one[1], one[2], one[3]
      ids[k], rows[k] = id, row
      local delivery, attempt, losses = 1, 0, 0
      local d = again and call('HGET', P .. 'd', id)
      if d then
        local how, since
        delivery, attempt, losses, how, since = unpack_('>I4I4BBI6', d)
        delivery = delivery + 1
        again_from[#again_from + 1] = {id, delivery, attempt, losses, 0, since}
      end
      fields[#fields + 1] = id
      fields[#fields + 1] = lease_of(id, row, delivery, list.alone)
      local values, complete
      if #id == 20 and (sub(row, 24, 27) ~= '\0\0\0\0' or has(byte(row, 5), 32)) then
        values, complete = values_of(id, row, budget)
      end
      if d or values then
        more[#more + 1] = {k, delivery, attempt, losses, complete == false and 0 or 1, values or {}}
      end
      if list.alone then burdens[#burdens + 1] = id end
    end
  end
  if not pcall(prepare) then -- a row is cut short, which must not take along what is beside it
    local whole = {}
    for _, one in ipairs(chosen) do
      if is_whole(#one[1], one[2]) then whole[#whole + 1] = one else end_broken(one[1]) end
    end
    chosen = whole
    walk()
    leave()
    survey()
    prepare()
  end
  for _, one in ipairs(again_from) do remember(unpack(one)) end
  if #burdens > 0 then call('HSET', w, 'b', burdens[1]) end
  if #fields > 0 then call('HSET', w, unpack(fields)) end
  for _, id in ipairs(ids) do
    if #id == 20 then run_of(sub(id, 1, 16)).moved = true end
  end
  flush_runs()
  flush_ended()
end

local ready, alone = 0, 0
local left = {}
for _, list in ipairs(lists) do
  local size = size_of(list)
  ready = ready + size
  left[list.queue] = (left[list.queue] or 0) + size
  if list.alone and size > 0 then alone = 1 end
end
for queue, count in pairs(ghosts) do
  if count > 0 then
    local still = tonumber(call('HGET', P .. 'g:' .. queue, '') or 0)
    ready = ready - still
    left[queue] = (left[queue] or 0) - still
  end
end
-- Whoever took a hint takes a step: what is left needs another one, whatever this step came for.
for queue, count in pairs(left) do
  if count > 0 then call('ZADD', P .. 'k:' .. queue, 0, 1) end
end
-- One who goes to work minds no longer what is due before others look by themselves.
if #ids > 0 and due and tonumber(due) - now < SOON then call('ZADD', P .. 'k:' .. ARGV[8], 0, 1) end
local next_ms = -1
if call('EXISTS', P .. 'todo') == 1 then -- pages of edges are left for whoever comes by
  due = now
  for q = 1, nq do call('ZADD', P .. 'k:' .. ARGV[7 + q], 0, 1) end
end
if due and due ~= 'inf' then next_ms = math.max(0, tonumber(due) - now) end
local other = deadlines[1] ~= me and deadlines[2] or deadlines[4]
if other then
  local gap = math.max(0, tonumber(other) - now)
  if next_ms < 0 or gap < next_ms then next_ms = gap end
end
return {table.concat(verdicts), ready, alone, next_ms, call('SMEMBERS', stops_key), ids, rows, more,
        call('HSTRLEN', w, 'i') == UNOPENED and 1 or 0}
