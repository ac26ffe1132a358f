#!lua
-- sweep: a bounded part of the housekeeping.
-- Keys    1 sessions (zset)
-- Args    1 now  2 limit
-- Gives   how many it expired, how many cursors it took up, whether there is more
-- Cost    O(limit); one page of edges
-- Repeat  safe
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
-- @include _started
-- @include _rewind
local limit = tonumber(ARGV[2])
local continued = resume()
walk()
local again = call('SRANDMEMBER', P .. 'again') -- one whose maker did not come to its end
local rewound = false
if again then
  continued = continued + 1
  rewind_page(run_of(again))
  rewound = call('EXISTS', P .. 'again') == 1
  walk()
end
leave()
local function fail_one(id, row)
  if not call('ZSCORE', P .. 's', id) then leave_list(id, queue_of(id, row)) end
  expire(id, row)
end

local late = call('ZRANGE', P .. 'e', '-inf', now, 'BYSCORE', 'LIMIT', 0, math.min(limit, 1000))
local held = phases().holders(late)
local n = 0
for _, id in ipairs(late) do
  local row = not held[id] and body_row(id) -- what runs is judged when it comes back
  local x = row and #id == 20 and node(run_of(sub(id, 1, 16)), (unpack_('>I4', id, 17)))
  local again = #id == 20 and call('SISMEMBER', P .. 'again', sub(id, 1, 16)) == 1
  if row and not again and not (x and x.state == HELD) then -- and what is held when it goes on
    try(id, fail_one, id, row)
    n = n + 1
  end
end
walk()
local left = leave(true)
-- Until when the letter of a node is kept, or looked at again; nil if its run is gone.
local function kept_with_run(id)
  local run = sub(id, 1, 16)
  local till = tonumber(call('ZSCORE', P .. 'x', 'r' .. run) or nil)
  if till then return till > now and till or nil end
  return call('HEXISTS', P .. 'n:' .. run, 'r') == 1 and now + letter_ttl(id, '') or nil
end

local gone, again = call('ZRANGE', P .. 'x', '-inf', now, 'BYSCORE', 'LIMIT', 0, limit), {}
for _, what in ipairs(gone) do
  local kind, id = sub(what, 1, 1), sub(what, 2)
  if kind == 'r' then
    for _, key in ipairs({'c:', 'n:', 'v:', 'able:', 'started:'}) do call('UNLINK', P .. key .. id) end
    call('ZREM', P .. 'runs', id)
  elseif kind == 's' and is_known(sub(what, 9)) then
    again[#again + 1] = now + DAY
    again[#again + 1] = what
    n = n - 1
  elseif kind == 'd' then
    local till = #id == 20 and kept_with_run(id)
    if till then
      again[#again + 1] = till
      again[#again + 1] = what
      n = n - 1
    else
      call('HDEL', P .. 'dead', id)
      call('ZREM', P .. 'deads', id)
    end
  else
    call('UNLINK', P .. what)
  end
  n = n + 1
end
if #gone > 0 then many('ZREM', P .. 'x', gone) end
if #again > 0 then many('ZADD', P .. 'x', again) end
local more = (left > 0 or rewound or #gone == limit or n >= math.min(limit, 1000)) and 1 or 0
return {n, continued, more}
