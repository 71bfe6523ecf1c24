#pragma once
#include <cmath>
#include <cstdio>
#include <string>

#include <gtest/gtest.h>

namespace lpu::test {

/// A published figure and what the model makes of it.
struct Figure {
  std::string name;  ///< row and what it is
  std::string unit;
  double expected = 0;
  double measured = 0;
  double tolerance = 0;  ///< share of `expected`
  std::string source;    ///< with its mark: primary, secondary, derived, from memory
};

/// Prints expected, measured and error, records them with the test, and fails outside of the tolerance.
inline void check_figure(const Figure& figure) {
  const double error = (figure.measured - figure.expected) / figure.expected;
  std::printf("validation | %s | expected %.6g %s | measured %.6g %s | error %+.2f%% | tolerance %.2f%% | %s\n",
              figure.name.c_str(),
              figure.expected,
              figure.unit.c_str(),
              figure.measured,
              figure.unit.c_str(),
              100 * error,
              100 * figure.tolerance,
              figure.source.c_str());
  testing::Test::RecordProperty("expected", std::to_string(figure.expected));
  testing::Test::RecordProperty("measured", std::to_string(figure.measured));
  testing::Test::RecordProperty("source", figure.source);
  EXPECT_LE(std::abs(error), figure.tolerance) << figure.name;
}

/// Prints published and predicted side by side and judges nothing: a sanity anchor, or a miss that is known.
inline void show_figure(const Figure& figure) {
  std::printf("not judged | %s | published %.6g %s | predicted %.6g %s | error %+.2f%% | %s\n",
              figure.name.c_str(),
              figure.expected,
              figure.unit.c_str(),
              figure.measured,
              figure.unit.c_str(),
              100 * (figure.measured - figure.expected) / figure.expected,
              figure.source.c_str());
}

}  // namespace lpu::test
