// Arrays of several types in one block of memory, to be copied to a device at once.
#pragma once

#include <cstdint>
#include <vector>

namespace seqtrain {

// Items behind those there are; where they begin.
template <class T, class Items>
inline int64_t put(std::vector<T>& array, const Items& items) {
  const auto place = static_cast<int64_t>(array.size());
  array.resize(array.size() + items.size());
  T* out = array.data() + place;
  for (const auto item : items) *out++ = static_cast<T>(item);
  return place;
}

// An array right behind what there is.
template <class T>
inline void extend(std::vector<char>& out, const std::vector<T>& items) {
  const auto* bytes = reinterpret_cast<const char*>(items.data());
  out.insert(out.end(), bytes, bytes + items.size() * sizeof(T));
}

// An array behind what there is, aligned; where it begins.
template <class T>
inline int64_t append(std::vector<char>& out, const std::vector<T>& items) {
  const std::size_t place = (out.size() + 15) / 16 * 16;
  out.resize(place);
  extend(out, items);
  return static_cast<int64_t>(place);
}

}  // namespace seqtrain
