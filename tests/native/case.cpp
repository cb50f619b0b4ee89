#include "case.h"

namespace dualform::test {

const char* dtype_name(int dtype) {
    static const char* const names[] = {"F32", "BF16", "F64", "I32"};
    return names[dtype];
}

int64_t Draw::choose(const char* name, const std::function<int64_t()>& draw) {
    const auto found = given_.find(name);
    const int64_t value = found != given_.end() ? found->second : draw();
    options_.emplace_back(name, value);
    return value;
}

int64_t Draw::dim(const char* name, int64_t max) {
    return choose(name, [&] {
        for (;;) {
            const int64_t n = differentiable ? random.one_of({1, 2, 3, 4, 5, 7})
                                             : random.one_of({1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129});
            if (n <= max) return n;
        }
    });
}

int64_t Draw::one_of(const char* name, std::initializer_list<int64_t> values) {
    return choose(name, [&] { return random.one_of(values); });
}
int64_t Draw::below(const char* name, int64_t n) {
    return choose(name, [&] { return random.below(n); });
}
bool Draw::flag(const char* name, double probability) {
    return choose(name, [&] { return int64_t{random.chance(probability)}; }) != 0;
}
int Draw::either(const char* name) { return flag(name) ? accumulation_dtype(dtype) : dtype; }

Distribution Draw::data(double spread) {
    const double mean = differentiable ? 0 : static_cast<double>(random.one_of({0, 0, 0, 0, 0, 1, 10, 100}));
    return [mean, spread](Random& r) { return mean + spread * r.normal(); };
}
Distribution Draw::plain(double spread) const {
    return [spread](Random& r) { return spread * r.normal(); };
}

std::string Draw::text() const {
    std::string s;
    for (const auto& [name, value] : options_) s += (s.empty() ? "" : " ") + name + "=" + std::to_string(value);
    return s;
}

Tensor& Case::add(const char* name, Role role, int type, Shape shape, Distribution values) {
    tensors.push_back({name, role, type, std::move(shape), std::move(values), false, 0, "", 0});
    return tensors.back();
}

const Tensor* Case::find(const std::string& name) const {
    for (const Tensor& t : tensors)
        if (t.name == name) return &t;
    return nullptr;
}

void Case::gradient(const char* of, const char* name) {
    gradients.push_back({of, name});
    for (Tensor& t : tensors)
        if (t.name == name) t.is_gradient = true;
}

namespace {
std::map<std::string, MakeCase>& registry() {
    static std::map<std::string, MakeCase> r;
    return r;
}
}  // namespace

Registration::Registration(const char* op, MakeCase make) { registry()[op] = make; }
const std::map<std::string, MakeCase>& cases() { return registry(); }

Values draw_values(const Case& c, Random& random) {
    Values v;
    for (const Tensor& t : c.tensors) {
        if (t.values == nullptr) continue;
        std::vector<double>& x = v[t.name];
        x.resize(static_cast<size_t>(count(t.shape)));
        for (double& e : x) e = t.dtype == DF_I32 ? t.values(random) : round_to(t.dtype, t.values(random));
    }
    return v;
}

}  // namespace dualform::test
