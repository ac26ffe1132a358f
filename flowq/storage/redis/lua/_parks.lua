-- What is parked, in the words of storage/base.py: nodes whose end nobody is to see. Bit 4 of their rows
-- says so, and field 'Z' of n:<run> names them all (4 bytes each); 'p' and index holds what one ended
-- with: state 1, culprit 4, settlement 5, cell; 'R' what was asked for.
local more_parks

function parks()
  if more_parks then return more_parks end

  -- Those of a run, as a set.
  local function all_of(r)
    if not r.parked then
      r.parked = {}
      local raw = call('HGET', r.n, 'Z') or ''
      for at = 1, #raw, 4 do r.parked[unpack_('>I4', raw, at)] = true end
    end
    return r.parked
  end

  local function is_parked(r, i) return all_of(r)[i] end

  local function is_over(r, i) return all_of(r)[i] and call('HEXISTS', r.n, 'p' .. pack('>I4', i)) == 1 end

  local function write_all(r)
    local left = {}
    for i in pairs(all_of(r)) do left[#left + 1] = pack('>I4', i) end
    table.sort(left)
    if #left > 0 then call('HSET', r.n, 'Z', table.concat(left)) else call('HDEL', r.n, 'Z') end
  end

  -- Sets bit 4 of a row, or takes it away.
  local function mark_row(r, i, parked)
    local i4 = pack('>I4', i)
    local row = call('HGET', r.n, i4)
    local bits = row and byte(row, 7)
    if not row or has(bits, 4) == parked then return end
    call('HSET', r.n, i4, sub(row, 1, 6) .. string.char(bits + (parked and 4 or -4)) .. sub(row, 8))
    r.rows[i] = nil
  end

  local function park(r, i)
    all_of(r)[i] = true
    mark_row(r, i, true)
  end

  -- It is parked no more, whatever it had ended with; gives that.
  local function forget_parked(r, i)
    local field = 'p' .. pack('>I4', i)
    local over = call('HGET', r.n, field)
    if over then call('HDEL', r.n, field) end
    mark_row(r, i, false)
    all_of(r)[i] = nil
    return over
  end

  -- Keeps what a node ends with.
  local function keep_end(r, x, state, cell, settled, culprit)
    local i4 = pack('>I4', x.i)
    local id = r.id .. i4
    if call('HSETNX', r.n, 'p' .. i4, pack('>BI4', state, culprit) .. settled .. cell) == 0 then return end
    if has(x.flags, 2) then return end
    if has(x.flags, 32) then limits().leave(r, x) end
    local delivery, attempt, losses, how, since = record_of(id)
    if settled ~= ZERO5 then delivery, how = settlement(settled) end
    remember(id, delivery, attempt, losses, how, since)
    timeless[#timeless + 1] = id
    x.state = HELD
  end

  -- Lets a node end as any; now, if it had ended.
  local function unpark(r, x, among)
    local over = forget_parked(r, x.i)
    if not among then write_all(r) end
    if not over then return end
    local state, culprit = unpack_('>BI4', over)
    if x.i == 0 then call('HSET', r.n, 'E', pack('>I8', now)) end -- its run ends now
    finish(r, x, state, sub(over, 11), sub(over, 6, 10), culprit)
    if x.state >= SUCCESS then forget(r.id .. pack('>I4', x.i)) end
  end

  local function end_parking(id)
    local r, i = run_of(sub(id, 1, 16)), (unpack_('>I4', id, 17))
    local x = is_parked(r, i) and node(r, i)
    if x then unpark(r, x) end
  end

  -- Lets some end that are parked; gives how many it looked at, and whether that is all.
  local function take_back(r, edges)
    local some = {}
    for i in pairs(all_of(r)) do some[#some + 1] = i end
    table.sort(some)
    for k = 1, math.min(edges, #some) do
      local x = node(r, some[k])
      if x then unpark(r, x, true) else forget_parked(r, some[k]) end
    end
    write_all(r)
    return math.min(edges, #some), #some <= edges
  end

  -- Nothing is to run anew: lets all end that is parked.
  local function take_all_back(r)
    if call('HDEL', r.n, 'R') == 0 and not next(all_of(r)) then return end
    local _, all = take_back(r, PAGE)
    if not all then spread(r, 0, UNPARK, NONE) end
  end

  more_parks = {
    end_parking = end_parking, forget = forget_parked, is = is_parked, is_over = is_over, keep = keep_end, park = park,
    take_all_back = take_all_back, take_back = take_back, unpark = unpark, write = write_all,
  }
  return more_parks
end
