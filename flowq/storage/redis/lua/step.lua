#!lua
-- step: settle outcomes, move one page on, take back, queue what is due, hand out.
-- Keys    1 sessions (zset session -> deadline, ms)
-- Args    1 now  2 session  3 lease, ms  4 want  5 bytes of values  6 outcomes  7 queues
--         then the queues, "b", the ids, for each its delivery and kind, for each its data
-- Gives   verdicts (one letter each), ready, alone, ms to the next moment or -1, stops,
--         ids, rows, more: {place, delivery, attempt, losses, complete, values} where not 1, 0, 0
-- Cost    O(outcomes + want); one page of edges
-- Repeat  safe: a settlement is fenced by its delivery
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _back
-- @include _settle
-- @include _hand
local me, lease_ms, want = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local n, nq = tonumber(ARGV[6]), tonumber(ARGV[7])
local w, stops_key = P .. 'w:' .. me, P .. 'z:' .. me
local at = 8 + nq -- where "b" stands, the ids behind it
local held = call('HMGET', w, unpack(ARGV, at, at + n))
local burden = held[1]
close_gap(10000)
if call('ZADD', P .. 'L', now + lease_ms, me) == 1 then
  call('HSETNX', w, 'i', string.rep('\0', 80))
end

local verdicts = {}
local extra = n > 0 and call('EXISTS', P .. 'd', P .. 'e', P .. 'h') > 0
local gone, singles, seen = {}, {}, nil
for k = 1, n do
  local id, lease = ARGV[at + k], held[k + 1]
  local meta = ARGV[at + n + k]
  if lease and seen and seen[id] then lease = false end
  if not lease or sub(lease, 1, 4) ~= sub(meta, 1, 4) then
    if #gone > 0 then call('HDEL', w, unpack(gone)) gone = {} end
    flush_runs() flush_ended()
    verdicts[k] = past(id, meta)
  else
    verdicts[k] = 's'
    gone[#gone + 1] = id
    seen = seen or {}
    seen[id] = true
    if id == burden then call('HDEL', w, 'b') burden = false end
    local data = ARGV[at + n + n + k]
    if lease == meta then
      keep(id, SUCCESS, meta, data, DAY)
      if anyone_waits then tell(id) end
      singles[#singles + 1] = id
      if extra then forget(id) end
    elseif #id == 20 and byte(meta, 5) == 0 and not has(byte(lease, 5), 16) then
      done_node(id, lease, meta, data)
      if extra then forget(id) end
    else
      if has(byte(lease, 5), 16) then call('SREM', stops_key, id) end
      settle_other(id, lease, meta, data)
    end
  end
end
if #gone > 0 then call('HDEL', w, unpack(gone)) end
if #singles > 0 then call('HDEL', P .. 'm', unpack(singles)) end
walk(PAGE)
leave()
if resume() > 0 then walk(PAGE) leave() end
take_back()
walk(PAGE)
queue_due(1000)
leave()

local ids, rows, more = {}, {}, {}
if want > 0 and not burden then
  local idle = call('HLEN', w) == 1
  local lists = {}
  for q = 1, nq do lists_of(ARGV[7 + q], q, idle, lists) end
  if #lists > 1 then table.sort(lists, better) end
  if want > 1 and #lists > 0 then
    local ready = 0
    for q = 1, nq do ready = ready + ready_in(ARGV[7 + q]) end
    local share = math.ceil(ready / math.max(1, call('ZCOUNT', P .. 'L', '(' .. now, '+inf')))
    want = math.max(1, math.min(want, share))
  end
  local check = call('EXISTS', P .. 'd', P .. 'e') > 0
  local budget = {tonumber(ARGV[5]), false}
  local fields = {}
  local k = 1
  local failed, spent = 0, 0
  while k <= #lists and #ids < want do
    local list = lists[k]
    if list[6] and #ids > 0 then
      k = k + 1
    else
      local got, empty = pop(list, list[6] and 1 or want - #ids)
      if empty then k = k + 1 end
      if #got > 0 then
        local found = rows_of(got)
        local stop
        for j = 1, #got do
          local id, row = got[j], found[j]
          if stop then break end
          local late = row and has(byte(row, 5), 1) and call('ZSCORE', P .. 'e', id)
          if row and late and tonumber(late) <= now then
            failed = failed + 1
            expire(id, row)
          elseif row and has(byte(row, 5), 2) and #ids > 0 then
            stop = j
          elseif row then
            ids[#ids + 1] = id
            rows[#rows + 1] = row
            local delivery, attempt, losses = 1, 0, 0
            if check then
              local d = call('HGET', P .. 'd', id)
              if d then
                delivery, attempt, losses = unpack_('>I4I4B', d)
                delivery = delivery + 1
                remember(id, delivery, attempt, losses, 0, select(5, unpack_('>I4I4BBI6', d)))
              end
            end
            fields[#fields + 1] = id
            fields[#fields + 1] = lease_of(id, row, delivery, list[6])
            local values, complete
            if #id == 20 and sub(row, 24, 27) ~= '\0\0\0\0' then
              values, complete = values_of(id, row, budget)
            end
            if delivery > 1 or attempt > 0 or losses > 0 or values then
              more[#more + 1] = {#ids, delivery, attempt, losses, complete == false and 0 or 1, values or {}}
            end
            if list[6] then
              call('HSET', w, 'b', id)
              want = 1
            end
            if has(byte(row, 5), 2) then stop = j + 1 end
          end
        end
        if stop then
          want = #ids
          local key = P .. 'r:' .. list[5] .. ':' .. list[4]
          local back = {}
          for j = #got, stop, -1 do back[#back + 1] = got[j] end
          if #back > 0 then
            many('LPUSH', key, back)
            call('ZADD', P .. 'p:' .. list[5], list[3], list[4])
          end
        end
      end
      if failed > 0 and #ids == 0 then -- what those let run may be better than what is left
        spent, failed = spent + failed, 0
        walk(PAGE)
        leave()
        if spent >= 1000 then break end
        lists = {}
        for q = 1, nq do lists_of(ARGV[7 + q], q, idle, lists) end
        table.sort(lists, better)
        k = 1
      end
    end
  end
  if failed > 0 then walk(PAGE) leave() end
  if #fields > 0 then call('HSET', w, unpack(fields)) end
end

local ready, alone = 0, 0
for q = 1, nq do
  local queue = ARGV[7 + q]
  local left = ready_in(queue)
  if left > 0 then
    ready = ready + left
    if #ids > 0 then call('ZADD', P .. 'k:' .. queue, 0, 1) end
    for _, member in ipairs(call('ZREVRANGE', P .. 'p:' .. queue, 0, -1)) do
      if byte(member) == 97 and call('LLEN', P .. 'r:' .. queue .. ':' .. member) > 0 then alone = 1 end
    end
  end
end
local next_ms = -1
local due = call('ZRANGE', P .. 's', 0, 0, 'WITHSCORES')[2]
if due then next_ms = math.max(0, tonumber(due) - now) end
local first = call('ZRANGE', P .. 'L', 0, 1, 'WITHSCORES')
local other = first[1] == me and first[4] or first[1] ~= me and first[2]
if other then
  local left = math.max(0, tonumber(other) - now)
  if next_ms < 0 or left < next_ms then next_ms = left end
end
return {table.concat(verdicts), ready, alone, next_ms, call('SMEMBERS', stops_key), ids, rows, more}
