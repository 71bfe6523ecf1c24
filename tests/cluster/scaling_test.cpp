// Verdicts of hand-made curves: E_total at its edges, N0, hollow points, replicas.
#include "scaling.hpp"

#include <vector>

#include <gtest/gtest.h>

namespace lpu::cluster {
namespace {

/// A saturated, compiled point.
ScalingRow point(std::int32_t devices, double rate) {
  ScalingRow row;
  row.curve = "X";
  row.devices = devices;
  row.filled = true;
  row.users_saturating = 10;
  row.users_fit = 10;
  row.users = 10;
  row.tokens_per_second = rate;
  return row;
}

std::vector<ScalingRow> curve(double at_8n0) {
  return {point(10, 100), point(20, 200), point(40, 400), point(80, at_8n0)};
}

TEST(Scaling, EfficiencyOfExactlyNineTenthsIsNearLinearAndLessIsNot) {
  std::vector<ScalingRow> rows = curve(720);
  EXPECT_EQ(judge(rows), Verdict::kNearLinear);
  EXPECT_DOUBLE_EQ(*rows.back().efficiency_total, 0.9);
  rows = curve(719.9);
  EXPECT_EQ(judge(rows), Verdict::kNo);
}

TEST(Scaling, MoreThanIdealIsNotSaturatedAndNeverYes) {
  std::vector<ScalingRow> rows = curve(840);
  EXPECT_EQ(judge(rows), Verdict::kNearLinear);  // 1.05
  rows = curve(840.1);
  EXPECT_EQ(judge(rows), Verdict::kNotSaturated);
}

TEST(Scaling, N0IsTheSmallestWhereTheSaturatingUsersFit) {
  std::vector<ScalingRow> rows = curve(800);
  rows.front().users_fit = 9;
  EXPECT_EQ(judge(rows), Verdict::kGridEnds);
  EXPECT_EQ(rows.front().n0, 20);
  EXPECT_FALSE(rows.front().efficiency_total);
  for (ScalingRow& row : rows) {
    row.users_fit = 9;
  }
  EXPECT_EQ(judge(rows), Verdict::kNeverFits);
}

TEST(Scaling, NoVerdictRestsOnAHollowPoint) {
  std::vector<ScalingRow> rows = curve(800);
  rows[2].filled = false;
  EXPECT_EQ(judge(rows), Verdict::kNotCompiled);
  rows = curve(800);
  rows.front().filled = false;
  EXPECT_EQ(judge(rows), Verdict::kNotCompiled);
  rows = curve(400);
  rows[2].filled = false;
  EXPECT_EQ(judge(rows), Verdict::kNo);  // a compiled point says so
}

TEST(Scaling, APointThatMeetsNothingIsANoAndACurveOfThemNeverMeets) {
  std::vector<ScalingRow> rows = curve(800);
  rows[2].tokens_per_second.reset();
  EXPECT_EQ(judge(rows), Verdict::kNo);
  for (ScalingRow& row : rows) {
    row.tokens_per_second.reset();
  }
  EXPECT_EQ(judge(rows), Verdict::kNeverMeets);
}

TEST(Scaling, PointsBeyondEightN0DecideNothing) {
  std::vector<ScalingRow> rows = curve(800);
  rows.push_back(point(160, 1));
  EXPECT_EQ(judge(rows), Verdict::kNearLinear);
}

TEST(Scaling, AGpuWithoutProgramsIsJudgedAllTheSame) {
  std::vector<ScalingRow> rows = curve(800);
  for (ScalingRow& row : rows) {
    row.filled.reset();
  }
  EXPECT_EQ(judge(rows), Verdict::kNearLinear);
}

TEST(Scaling, ReplicasAreTheBestCopiesOfSmallerPoints) {
  const std::vector<ScalingRow> rows = {point(10, 100), point(20, 150), point(45, 500)};
  const std::vector<ScalingRow> copies = replicate(rows);
  EXPECT_EQ(copies[1].replicas, 2);
  EXPECT_DOUBLE_EQ(*copies[1].tokens_per_second, 200);
  EXPECT_EQ(*copies[1].users, 20);
  EXPECT_EQ(copies[2].replicas, 1);
  EXPECT_EQ(copies[2].devices, 45);
}

TEST(Scaling, CsvHasTheKeysOfARowAndLeavesUnknownCellsEmpty) {
  const std::vector<ScalingRow> rows = {point(10, 100)};
  const std::string text = to_csv(rows);
  EXPECT_EQ(text.substr(0, text.find('\n')),
            "curve,system,model,compute,kv,context,devices,filled,n0,users_saturating,users_fit,token_latency_us,tp,pp,"
            "micro_batch,users,slo_tpot_ms,tokens_per_second_per_user,tokens_per_second,efficiency_total,replicas,"
            "jitter_cycles_max,occupancy,latency_quality,published_over_predicted,tier,power_kw,"
            "tokens_per_second_per_kw,capex_usd,fingerprint");
  EXPECT_NE(text.find(",10,true,,10,10,,"), std::string::npos);
}

}  // namespace
}  // namespace lpu::cluster
