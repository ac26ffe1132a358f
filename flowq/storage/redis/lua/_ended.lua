-- What has ended: results of tasks called alone, and who waits for an end. Results lie in one hash
-- for each 256 ms of creation (the first 5 bytes of an id): v: for successes, f: for the rest, each
-- behind the moment until which it is kept (6 bytes, ms), and delivery and kind of its settlement.
local MEMORY = 600000
local buckets, woken, told = {}, {}, {}
local anyone_waits -- not looked yet

-- `settled` is the delivery and kind that settled it, five zero bytes where none did.
local function keep(id, state, settled, cell, ttl)
  if ttl == 0 and state == SUCCESS then
    cell = string.char(SUCCESS + EMPTY) .. sub(cell, 2, 21)
  end
  if ttl < MEMORY then ttl = MEMORY end
  local key = (state == FAILED and 'f:' or 'v:') .. sub(id, 1, 5)
  local b = buckets[key]
  if not b then
    b = {ttl = 0}
    buckets[key] = b
    buckets[#buckets + 1] = key
  end
  b[#b + 1] = id
  b[#b + 1] = pack('>I6', now + ttl) .. settled .. cell
  if ttl > b.ttl then b.ttl = ttl end
end

-- The cell of a task that ended alone, and what settled it; nil if it has not, or is forgotten.
local function kept(id)
  for _, kind in ipairs({'v:', 'f:'}) do
    local raw = call('HGET', P .. kind .. sub(id, 1, 5), id)
    -- one that is forgotten may lie there still, and the id have been used again
    if raw and now < unpack_('>I6', raw) then return sub(raw, 12), sub(raw, 7, 11) end
  end
end

function tell(id, index)
  if anyone_waits == nil then anyone_waits = call('EXISTS', P .. 'wait') == 1 end
  if not anyone_waits then return end
  told[#told + 1] = index and id .. pack('>I4', index) or id
end

-- d: holds what must be known of a message that was handed out before: deliveries 4, attempts 4,
-- losses 1, how it came back 1 (1 settled by its session, 2 never handed out, 0 lost), unknown since
-- 6 (ms).
local function record_of(id)
  local raw = call('HGET', P .. 'd', id)
  if not raw then return 0, 0, 0, 0, 0 end
  return unpack_('>I4I4BBI6', raw)
end

local function remember(id, delivery, attempt, losses, how, since)
  call('HSET', P .. 'd', id, pack('>I4I4BBI6', delivery, attempt, losses, how, since))
end

-- Forgets what only an unfinished message needs, once its end is written.
local forgotten = {}
local function forget(id)
  forgotten[#forgotten + 1] = id
  forgotten[id] = true
end

-- What goes on as an expansion is not due any more, nor does it expire.
local timeless = {}

local function flush_forgotten()
  if #timeless > 0 then
    for _, key in ipairs({'e', 's'}) do many('ZREM', P .. key, timeless) end
    timeless = {}
  end
  if #forgotten == 0 then return end
  local alone = {}
  for _, id in ipairs(forgotten) do if #id == 16 then alone[#alone + 1] = id end end
  for _, key in ipairs({'d', 'h'}) do many('HDEL', P .. key, forgotten) end
  for _, key in ipairs({'e', 's'}) do many('ZREM', P .. key, forgotten) end
  if #alone > 0 then many('HDEL', P .. 'm', alone) end
  forgotten = {}
end

-- Messages that leave their lists or are stopped where they run: {id, queue, priority, losses} and
-- {session, id, lease}.
local leaving, stopping = {}, {}
local function leave_list(id, queue, priority)
  local _, _, losses = record_of(id)
  leaving[#leaving + 1] = {id, queue, priority, losses}
end

local function flush_ended()
  for i = 1, #buckets do
    local key = buckets[i]
    local b = buckets[key]
    many('HSET', P .. key, b)
    local ttl = b.ttl
    local till = tonumber(call('ZSCORE', P .. 'x', key) or 0)
    if till < now + ttl then -- with slack, so that the next batches need not move it
      till = now + ttl + math.floor(ttl / 8)
      call('ZADD', P .. 'x', till, key)
      call('PEXPIRE', P .. key, till - now + 3600000)
    end
  end
  if #buckets > 0 then buckets = {} end
  if #told > 0 then
    local w = P .. 'wait'
    for i = 1, #told, MANY do
      local found = call('HMGET', w, unpack(told, i, math.min(i + MANY - 1, #told)))
      for k, tokens in ipairs(found) do
        if tokens then
          call('HDEL', w, told[i + k - 1])
          for at = 1, #tokens, 16 do woken[sub(tokens, at, at + 15)] = true end
        end
      end
    end
    told = {}
    for token in pairs(woken) do
      call('RPUSH', P .. 'a:' .. token, 1)
      call('PEXPIRE', P .. 'a:' .. token, 60000)
    end
    woken = {}
  end
end
