-- Limits, in the words of storage/base.py. Of each key: taken:<limit> are the nodes that have a place,
-- wanted:<limit> those that wait for one, most urgent first: by priority, then by the page in which
-- they were held (`turns` numbers those), then by index. A limit of a run is "/", the run, its key.
local more_limits
local taken = {} -- how many have a place, as far as this script knows

function limits()
  if more_limits then return more_limits end
  local TURNS = 4398046511104 -- 2^42, so that a score is a whole number

  -- The limits of a node, if it is or was a task: {name, most, key}.
  local function limits_of(r, x)
    if x.limits then return x.limits end
    local found, row = {}, row_of(r, x.i)
    x.limits = found
    if not has(x.flags, 32) or has(x.flags, 4) then return found end
    local more = phases().more_of(row)
    if not more then return found end -- of a row that was cut short
    local at, last = more.limits, more.limits + more.limited - 1
    while at < last do
      local most, n = unpack_('>I4H', row, at)
      local key = sub(row, at + 6, at + 5 + n)
      found[#found + 1] = {byte(key) == 47 and '/' .. r.id .. key or key, most, key}
      at = at + 6 + n
    end
    return found
  end

  local function taken_at(name)
    if not taken[name] then taken[name] = call('ZCARD', P .. 'taken:' .. name) end
    return taken[name]
  end

  -- Lets a node have a place at each of its limits; or holds it, where there is none, and it waits at the
  -- first such limit. Gives whether it may be queued.
  local function enter(r, x)
    local all, id, full = limits_of(r, x), nil, nil
    if #all == 0 then return true end
    id = r.id .. pack('>I4', x.i)
    for _, one in ipairs(all) do
      if taken_at(one[1]) >= one[2] and not call('ZSCORE', P .. 'taken:' .. one[1], id) then
        full = one[1]
        break
      end
    end
    for _, one in ipairs(all) do
      if x.state == HELD and one[1] ~= full then call('ZREM', P .. 'wanted:' .. one[1], id) end
      if not full then taken[one[1]] = taken_at(one[1]) + call('ZADD', P .. 'taken:' .. one[1], 0, id) end
    end
    dirty(r, x)
    if not full then return true end
    x.state = HELD
    if not turn then turn = call('INCR', P .. 'turns') end
    local _, priority = lane_of(r, x)
    call('ZADD', P .. 'wanted:' .. full, 'NX', turn - priority * TURNS, id)
    return false
  end

  -- It is queued or running no more, or waits no more.
  local function leave_places(r, x)
    local all = limits_of(r, x)
    if #all == 0 then return end
    local id, left = r.id .. pack('>I4', x.i), 0
    for _, one in ipairs(all) do
      local gone = call('ZREM', P .. 'taken:' .. one[1], id)
      if gone == 1 and taken[one[1]] then taken[one[1]] = taken[one[1]] - 1 end
      left = left + gone
      if x.state == HELD then call('ZREM', P .. 'wanted:' .. one[1], id) end
    end
    if left > 0 then spread(r, x.i, LET_IN, NONE) end
  end

  local function queue(r, x)
    local name, priority = lane_of(r, x)
    local id = r.id .. pack('>I4', x.i)
    local _, _, losses = record_of(id)
    x.state = QUEUED
    dirty(r, x)
    push(id, name, priority, true, losses > 0)
  end

  -- Tries those again that wait at the limits of a node that left them; gives how many it looked at, and
  -- whether that is all.
  local function let_in(r, gone, edges)
    local looked = 0
    for _, one in ipairs(limits_of(r, gone)) do
      local wanted = P .. 'wanted:' .. one[1]
      local first = call('ZRANGE', wanted, 0, 0)[1]
      while first do
        local other = run_of(sub(first, 1, 16))
        local x = node(other, (unpack_('>I4', first, 17)))
        local row = x and x.state == HELD and row_of(other, x.i)
        if looked >= edges then return looked, false end
        if not row then
          call('ZREM', wanted, first)
        elseif not is_whole(20, row) then -- whoever is handed it sees that
          call('ZREM', wanted, first)
          queue(other, x)
        else
          local most = 0
          for _, its in ipairs(limits_of(other, x)) do if its[1] == one[1] then most = its[2] end end
          if taken_at(one[1]) >= most then break end
          if enter(other, x) then queue(other, x) end
        end
        looked = looked + 1
        first = call('ZRANGE', wanted, 0, 0)[1]
      end
    end
    return looked, true
  end

  -- The key of the limit at which a node waits.
  local function waits_at(r, x)
    for _, one in ipairs(limits_of(r, x)) do
      if call('ZSCORE', P .. 'wanted:' .. one[1], r.id .. pack('>I4', x.i)) then return one[3] end
    end
    return ''
  end

  more_limits = {enter = enter, leave = leave_places, let_in = let_in, of = limits_of, queue = queue,
                 taken_at = taken_at, waits_at = waits_at}
  return more_limits
end

-- Whether what is to be queued may be: a task alone, or a node that has room at all its limits.
local function may_queue(id, row)
  if #id == 16 or not has(byte(row, 5), 32) then return true end
  local r = run_of(sub(id, 1, 16))
  local x = node(r, (unpack_('>I4', id, 17)))
  return not x or limits().enter(r, x)
end

-- What comes back later leaves its places.
local function put_off(id, row)
  if #id == 16 or not has(byte(row, 5), 32) then return end
  local r = run_of(sub(id, 1, 16))
  local x = node(r, (unpack_('>I4', id, 17)))
  if x then limits().leave(r, x) end
end
