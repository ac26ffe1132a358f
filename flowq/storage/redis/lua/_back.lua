-- How a message leaves a session without a value, and how it ends.
local DAY = 86400000

local function body_row(id)
  if forgotten[id] then return nil end
  if #id == 16 then return call('HGET', P .. 'm', id) end
  return call('HGET', P .. 'n:' .. sub(id, 1, 16), sub(id, 17))
end

local function ttls(row)
  if has(byte(row, 5), 8) then return unpack_('>I6I6', row, offset_of(row) - 11) end
  return DAY, 30 * DAY
end

local function ttl_for(id, row, state)
  local result, failed
  if #id == 16 then
    result, failed = ttls(row)
  else
    local _
    _, result, failed = unpack_('>I6I6I6', call('HGET', P .. 'n:' .. sub(id, 1, 16), 'r'))
  end
  return state == FAILED and failed or result
end

-- Ends a task, alone or in a run.
local function end_task(id, row, state, cell, settled)
  if #id == 16 then
    keep(id, state, settled, cell, ttl_for(id, row, state))
    tell(id)
  else
    local r = run_of(sub(id, 1, 16))
    local i = unpack_('>I4', id, 17)
    local x = node(r, i)
    if x and x.state == QUEUED then
      finish(r, x, state, cell, settled, state == FAILED and i or NONE)
    end
    if x and x.state < SUCCESS then return end -- what is to follow its failure runs, or it is parked
  end
  forget(id)
end

-- A letter of a task alone is kept its time to live. One of a node is kept as long as its run: it is
-- looked at again so soon that it is told of the run's end before that is gone.
local function letter_ttl(id, row)
  local ttl = ttl_for(id, row, FAILED)
  if #id == 20 then ttl = math.min(ttl, ttl_for(id, row, SUCCESS)) end
  return math.max(ttl, MEMORY)
end

local function bury(id, row, reason)
  local ttl = letter_ttl(id, row)
  local history = call('HGET', P .. 'h', id) or ''
  call('HSET', P .. 'dead', id, pack('>I6I6HI4', now, now + ttl, #reason, #history)
    .. reason .. history .. sub(row, offset_of(row) + 1))
  local at = call('INCR', P .. 'deads:n')
  call('ZADD', P .. 'deads', at, id)
  call('ZADD', P .. 'x', now + ttl, 'd' .. id)
end

-- Ends a message whose row is cut short: nothing can be taken from that, so it is read as one that
-- says nothing. What depends on such a node is not known any more; its run is left as it is.
local function end_broken(id)
  local row = pack('>I4I4B', 9, 0, 0)
  if #id == 20 then
    row = pack('>I4', 41) .. string.rep('\0', 37)
    run_of(sub(id, 1, 16)).rows[unpack_('>I4', id, 17)] = row
  end
  bury(id, row, 'its row is cut short')
  local cell = cell_of(FAILED, failure(id, row, 'unreadable', '', 'its row in the store is cut short'))
  end_task(id, row, FAILED, cell, ZERO5)
end

-- Does something with a message, or ends it where its row is cut short: it must not take along what is
-- beside it. What reads the row comes before what writes.
local function try(id, f, ...)
  local ok, a = pcall(f, ...)
  if ok then return a end
  local row = body_row(id)
  if not row or is_whole(#id, row) then error(a) end
  end_broken(id)
end

-- Back to its queue, before what was enqueued; or `first` of all, where nobody had begun it.
local function give_back(id, row, losses, first)
  if #id == 20 then run_of(sub(id, 1, 16)).moved = true end
  local queue, priority = queue_of(id, row)
  push(id, queue, priority, true, losses > 0, first)
end

-- A session is gone that held this message; was it running there?
local function lose(id, lease, session, who, running, reason)
  local row = body_row(id)
  if not row then return end
  local delivery, flags = unpack_('>I4B', lease)
  if has(flags, 16) then
    local state, cell = extras().stopped_as(id, cell_of(CANCELLED, 'cancelled', delivery))
    return end_task(id, row, state, cell, pack('>I4B', delivery, LOST))
  end
  local _, attempt, losses, _, since = record_of(id)
  if not running then
    remember(id, delivery, attempt, losses, 0, since)
    return give_back(id, row, losses)
  end
  losses = losses + 1
  local dies = losses >= max_losses_of(id, row)
  local loss = pack('>I4I6HHH', delivery, now, #session, #who, #reason) .. session .. who .. reason
  call('HSET', P .. 'h', id, (call('HGET', P .. 'h', id) or '') .. loss)
  remember(id, delivery, attempt, math.min(losses, 255), 0, since)
  if not dies then return give_back(id, row, losses) end
  bury(id, row, 'lost')
  local text = "WorkerLost('its worker was lost " .. losses .. ' times: ' .. reason .. "')"
  local cell = cell_of(FAILED, failure(id, row, 'lost', 'flowq.errors.WorkerLost', text))
  end_task(id, row, FAILED, cell, pack('>I4B', delivery, LOST))
end

-- What a session says of itself: pid and host, behind which lies its info.
local function who_of(session)
  local i = call('HGET', P .. 'w:' .. session, 'i')
  if not i or #i < 6 then return '\0\0\0\0' end
  local n = unpack_('>H', i, 5)
  return sub(i, 1, 6 + n)
end

-- The worker may have ended after it took a hint, so where something may be ready it is left again.
local function drop_session(session)
  for _, queue in ipairs(call('SMEMBERS', P .. 'q')) do
    if call('EXISTS', P .. 'p:' .. queue) == 1 then call('ZADD', P .. 'k:' .. queue, 0, 1) end
  end
  call('DEL', P .. 'w:' .. session, P .. 'z:' .. session, P .. 'y:' .. session)
  call('ZREM', P .. 'L', session)
end

local function expire(id, row)
  local cell = cell_of(FAILED, failure(id, row, 'expired', '', "Expired('was not begun in time')"))
  end_task(id, row, FAILED, cell, settled_by(id))
end

-- Time in which nobody could reach the store does not count against leases.
local function close_gap(period)
  local seen = tonumber(call('SET', P .. 't', now, 'GET') or 0)
  if seen > 0 and now - seen > period then
    local shift = now - seen - period
    for _, session in ipairs(call('ZRANGE', P .. 'L', 0, -1)) do
      call('ZINCRBY', P .. 'L', shift, session)
    end
  end
end
