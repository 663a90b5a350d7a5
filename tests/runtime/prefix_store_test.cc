// Blocks on disk: what is read back, what is refused, and what other processes and full disks do.

#include "runtime/prefix_store.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/read_file.h"
#include "lora/record_cipher.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::testing::_;
using ::testing::HasSubstr;
using testing::StatusIs;

constexpr int64_t kBlockBytes = 1024;
constexpr int64_t kTokens = 64;

class PrefixStoreTest : public ::testing::Test {
 protected:
  // The n-th block of a chain, under this key.
  struct Block {
    std::vector<TokenId> tokens = std::vector<TokenId>(kTokens);
    std::vector<uint8_t> values = std::vector<uint8_t>(kBlockBytes, 0x11);
    BlockPlace place;
    std::string file;
  };
  static Block BlockAt(int n, const std::string& key = "", const std::string& scope = "s") {
    Block block;
    std::string before = FirstBlockName(scope, key);
    for (int i = 0; i <= n; ++i) {
      for (size_t t = 0; t < kTokens; ++t) block.tokens[t] = static_cast<TokenId>(100 * i + t);
      block.place = {before, BlockName(before, block.tokens), block.tokens, kBlockBytes};
      before = block.place.name;
    }
    block.values[0] = static_cast<uint8_t>(n);
    block.file = WriteBlockFile(block.place, block.values, key);
    block.place.tokens = {};
    return block;
  }
  // Where the block is asked for: the span is of the block as it is now.
  static BlockPlace PlaceOf(const Block& block) {
    BlockPlace place = block.place;
    place.tokens = block.tokens;
    return place;
  }

  std::string PathOf(const Block& block) const {
    return folder_.path("prefixes/" + block.place.name + ".kv");
  }
  bool Reads(PrefixStore& store, const Block& block) {
    std::vector<uint8_t> values(kBlockBytes);
    return store.Read(PlaceOf(block), values.data()) && values == block.values;
  }
  int64_t BytesOnDisk() const {
    int64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(folder_.path("prefixes"))) {
      if (entry.path().extension() == ".kv") bytes += static_cast<int64_t>(entry.file_size());
    }
    return bytes;
  }

  const testing::ScratchFolder folder_;
  PrefixStore store_{folder_.path("prefixes"), 1'000'000, ""};
};

TEST_F(PrefixStoreTest, ABlockIsReadBackByWhoAsksForItsTokens) {
  const Block first = BlockAt(0), second = BlockAt(1);
  EXPECT_FALSE(store_.Has(first.place.name));
  EXPECT_FALSE(Reads(store_, first));
  COTERIE_ASSERT_OK(store_.Write(first.place.name, first.file, ""));
  COTERIE_ASSERT_OK(store_.Write(second.place.name, second.file, ""));
  PrefixStore again(folder_.path("prefixes"), 1'000'000, "");
  EXPECT_TRUE(Reads(again, first));
  EXPECT_TRUE(Reads(again, second));
  EXPECT_FALSE(Reads(again, BlockAt(0, "", "another scope")));
  EXPECT_EQ(again.n_damaged(), 0);
}

TEST_F(PrefixStoreTest, OnlyItsOwnerMayEnterTheFolder) {
  COTERIE_ASSERT_OK(store_.Write(BlockAt(0).place.name, BlockAt(0).file, ""));
  struct stat info;
  ASSERT_EQ(::stat(folder_.path("prefixes").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(PrefixStoreTest, EveryByteThatIsChangedOrMissingIsNoticedAndTheFileRemoved) {
  const std::string key(kSealKeyBytes, 'k');
  for (const std::string& used : {std::string(), key}) {
    PrefixStore store(folder_.path("prefixes"), 1'000'000, used);
    const Block block = BlockAt(1, used);
    int64_t n_damaged = 0;
    const auto expect_removed = [&](const std::string& file, const std::string& what) {
      folder_.Write("prefixes/" + block.place.name + ".kv", file);
      EXPECT_FALSE(Reads(store, block)) << what;
      EXPECT_FALSE(fs::exists(PathOf(block))) << what;
      EXPECT_EQ(store.n_damaged(), ++n_damaged) << what;
    };
    for (size_t i = 0; i < block.file.size(); ++i) {
      std::string file = block.file;
      file[i] = static_cast<char>(file[i] ^ (1 << (i % 8)));
      expect_removed(file, absl::StrCat("bit of byte ", i));
    }
    for (const size_t length : {size_t{0}, size_t{1}, size_t{95}, size_t{96}, block.file.size() / 2,
                                block.file.size() - 1}) {
      expect_removed(block.file.substr(0, length), absl::StrCat("cut to ", length));
    }
    expect_removed(block.file + "x", "a byte more");
    expect_removed(BlockAt(0, used).file, "another block");
    expect_removed(BlockAt(1, used.empty() ? key : "").file, "sealed or not");
    expect_removed(std::string(block.file.size(), '\0'), "zeros");
    COTERIE_ASSERT_OK(store.Write(block.place.name, block.file, ""));
    EXPECT_TRUE(Reads(store, block));
  }
}

// As a program would that knows the format: sums are right, contents are not.
TEST_F(PrefixStoreTest, AForgedFileIsHeldToItsTokensAndToFiniteValues) {
  Block block = BlockAt(0);
  std::vector<uint8_t> values(kBlockBytes);
  std::vector<TokenId> other = block.tokens;
  other[5] += 1;
  BlockPlace forged = PlaceOf(block);
  forged.tokens = other;
  EXPECT_THAT(
      ReadBlockFile(WriteBlockFile(forged, block.values, ""), PlaceOf(block), "", values.data()),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("other tokens")));
  forged = PlaceOf(block);
  forged.before[0] = forged.before[0] == 'a' ? 'b' : 'a';
  EXPECT_THAT(
      ReadBlockFile(WriteBlockFile(forged, block.values, ""), PlaceOf(block), "", values.data()),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("other tokens")));
  block.values[101] = 0x7e;  // Half of an f16 that is not a number.
  EXPECT_THAT(ReadBlockFile(WriteBlockFile(PlaceOf(block), block.values, ""), PlaceOf(block), "",
                            values.data()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not finite")));
}

TEST_F(PrefixStoreTest, AKeySealsContentsAndHidesWhichTextsTheyAreOf) {
  const std::string key(kSealKeyBytes, 'k');
  const Block plain = BlockAt(0), sealed = BlockAt(0, key);
  EXPECT_NE(plain.place.name, sealed.place.name);
  EXPECT_THAT(plain.file, HasSubstr(std::string(64, 0x11)));
  EXPECT_THAT(sealed.file, ::testing::Not(HasSubstr(std::string(8, 0x11))));
  std::vector<uint8_t> values(kBlockBytes);
  const std::string other(kSealKeyBytes, 'x');
  EXPECT_THAT(ReadBlockFile(sealed.file, PlaceOf(sealed), other, values.data()),
              StatusIs(absl::StatusCode::kDataLoss, _));
  COTERIE_EXPECT_OK(ReadBlockFile(sealed.file, PlaceOf(sealed), key, values.data()));
  EXPECT_EQ(values, sealed.values);
}

TEST_F(PrefixStoreTest, APipeOrAFolderInABlocksPlaceIsNoBlock) {
  const Block block = BlockAt(0);
  fs::create_directories(folder_.path("prefixes"));
  ASSERT_EQ(::mkfifo(PathOf(block).c_str(), 0600), 0);
  EXPECT_FALSE(Reads(store_, block));
  EXPECT_FALSE(fs::exists(PathOf(block)));
  fs::create_directories(PathOf(block));
  EXPECT_FALSE(Reads(store_, block));
}

TEST_F(PrefixStoreTest, BeyondItsBytesWhatWasUsedLeastRecentlyGoes) {
  const int64_t file_bytes = static_cast<int64_t>(BlockAt(0).file.size());
  PrefixStore store(folder_.path("prefixes"), 3 * file_bytes, "");
  std::vector<std::string> names;
  for (int n = 0; n < 3; ++n) {
    COTERIE_ASSERT_OK(store.Write(BlockAt(n).place.name, BlockAt(n).file, ""));
    names.push_back(BlockAt(n).place.name);
  }
  store.NoteUse(names);
  const Block other = BlockAt(0, "", "other");
  COTERIE_ASSERT_OK(store.Write(other.place.name, other.file, ""));
  EXPECT_TRUE(Reads(store, BlockAt(0)));
  EXPECT_TRUE(Reads(store, BlockAt(1)));
  EXPECT_FALSE(store.Has(names[2])) << "the end of a chain goes before its beginning";
  EXPECT_TRUE(Reads(store, other));
  EXPECT_LE(BytesOnDisk(), 3 * file_bytes);
  PrefixStore tiny(folder_.path("prefixes"), file_bytes - 1, "");
  EXPECT_THAT(tiny.Write(names[2], BlockAt(2).file, ""),
              StatusIs(absl::StatusCode::kResourceExhausted, _));
}

TEST_F(PrefixStoreTest, WhatWasForgottenIsGoneForEveryProcessAndNotWrittenAgain) {
  PrefixStore other(folder_.path("prefixes"), 1'000'000, "");
  const Block block = BlockAt(0);
  const std::string before = other.Era();
  COTERIE_ASSERT_OK(other.Write(block.place.name, block.file, before));
  folder_.Write("prefixes/" + block.place.name + ".kv.abcdef", "half a block");
  COTERIE_ASSERT_OK(store_.Forget());
  EXPECT_EQ(BytesOnDisk(), 0);
  EXPECT_FALSE(fs::exists(PathOf(block) + ".abcdef"));
  EXPECT_NE(other.Era(), before);
  EXPECT_THAT(other.Write(block.place.name, block.file, before),
              StatusIs(absl::StatusCode::kAborted, _));
  EXPECT_EQ(BytesOnDisk(), 0);
  const std::string era = other.Era();
  COTERIE_ASSERT_OK(other.Write(block.place.name, block.file, era));
  PrefixStore off(folder_.path("prefixes"), 0, "");
  EXPECT_FALSE(off.Has(block.place.name));
  COTERIE_ASSERT_OK(off.Forget());
  EXPECT_EQ(BytesOnDisk(), 0) << "blocks that this process does not use";
}

TEST_F(PrefixStoreTest, ForgettingSucceedsWhereThereIsNoStoreAndCanBeNone) {
  PrefixStore nowhere("/proc/nowhere/prefixes", 0, "");
  COTERIE_EXPECT_OK(nowhere.Forget());
  EXPECT_EQ(nowhere.Era(), "");
}

// A limit on the size of files stands in for a disk without room.
TEST_F(PrefixStoreTest, AFullDiskLeavesNoPartOfABlock) {
  const Block block = BlockAt(0);
  COTERIE_ASSERT_OK(store_.Write(block.place.name, block.file, ""));
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{500, 500};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const Block other = BlockAt(1);
    ::_exit(store_.Write(other.place.name, other.file, "").ok() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(BytesOnDisk(), static_cast<int64_t>(block.file.size()));
  EXPECT_TRUE(Reads(store_, block));
}

TEST_F(PrefixStoreTest, AKilledWriterLeavesWholeBlocksAndItsRestIsSwept) {
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      PrefixStore store(folder_.path("prefixes"), 1'000'000, "");
      for (int n = 0;; n = (n + 1) % 8) {
        const Block block = BlockAt(n);
        (void)store.Write(block.place.name, block.file, "");
      }
    }
    absl::SleepFor(absl::Microseconds(500 + 700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
  }
  int n_whole = 0;
  for (int n = 0; n < 8; ++n) n_whole += Reads(store_, BlockAt(n));
  EXPECT_GT(n_whole, 0);
  EXPECT_EQ(store_.n_damaged(), 0);
  // The lock went with its holder, and what is left of a write goes in time.
  for (const auto& entry : fs::directory_iterator(folder_.path("prefixes"))) {
    if (entry.path().extension() == ".kv") continue;
    fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(1));
  }
  COTERIE_ASSERT_OK(store_.Write(BlockAt(0).place.name, BlockAt(0).file, ""));
  for (const auto& entry : fs::directory_iterator(folder_.path("prefixes"))) {
    EXPECT_THAT(entry.path().filename().string(),
                ::testing::AnyOf("lock", ::testing::EndsWith(".kv")));
  }
}

TEST_F(PrefixStoreTest, ProcessesThatWriteReadAndForgetAtOnceSeeWholeBlocksOnly) {
  std::vector<pid_t> children;
  for (int c = 0; c < 4; ++c) {
    const pid_t child = ::fork();
    if (child == 0) {
      PrefixStore store(folder_.path("prefixes"), 4 * 2048, "");
      for (int i = 0; i < 100; ++i) {
        const Block block = BlockAt((i + c) % 6);
        (void)store.Write(block.place.name, block.file, store.Era());
        (void)Reads(store, block);
        if (c == 3 && i % 20 == 0) (void)store.Forget();
      }
      ::_exit(store.n_damaged() == 0 ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

}  // namespace
}  // namespace coterie
