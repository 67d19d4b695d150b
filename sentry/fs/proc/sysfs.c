/* The tree of sysfs. What a machine has and a sandbox has not are empty directories, where programs
 * look for it. */
#include "sentry/fs/proc/sysfs.h"

#include "proc_node.h"

static const struct proc_entry no_entries[] = {{0}};

#define EMPTY_DIR(name_)                                                                           \
    {                                                                                              \
        .name = (name_), .mode = 0555, .children = no_entries                                      \
    }

static const struct proc_entry thp_entries[] = {
    {.name = "defrag", .mode = 0444, .text = "always defer defer+madvise madvise [never]\n"},
    {.name = "enabled", .mode = 0444, .text = "always madvise [never]\n"},
    {.name = "hpage_pmd_size", .mode = 0444, .text = "2097152\n"},
    {.name = "shmem_enabled",
     .mode = 0444,
     .text = "always within_size advise [never] deny force\n"},
    {0},
};

static const struct proc_entry mm_entries[] = {
    EMPTY_DIR("hugepages"),
    {.name = "transparent_hugepage", .mode = 0555, .children = thp_entries},
    {0},
};

static const struct proc_entry kernel_entries[] = {
    {.name = "mm", .mode = 0555, .children = mm_entries},
    EMPTY_DIR("debug"),
    EMPTY_DIR("security"),
    {0},
};

static const struct proc_entry overlay_entries[] = {
    {.name = "index", .mode = 0444, .text = "N\n"},
    {.name = "metacopy", .mode = 0444, .text = "N\n"},
    {.name = "nfs_export", .mode = 0444, .text = "N\n"},
    {.name = "redirect_always_follow", .mode = 0444, .text = "Y\n"},
    {.name = "redirect_dir", .mode = 0444, .text = "N\n"},
    {.name = "redirect_max", .mode = 0444, .text = "256\n"},
    {.name = "xino_auto", .mode = 0444, .text = "N\n"},
    {0},
};

static const struct proc_entry overlay_module[] = {
    {.name = "parameters", .mode = 0555, .children = overlay_entries},
    {0},
};

static const struct proc_entry module_entries[] = {
    {.name = "overlay", .mode = 0555, .children = overlay_module},
    {0},
};

static const struct proc_entry fs_entries[] = {EMPTY_DIR("cgroup"), {0}};
static const struct proc_entry dev_entries[] = {EMPTY_DIR("block"), EMPTY_DIR("char"), {0}};
static const struct proc_entry class_entries[] = {EMPTY_DIR("block"),
                                                  EMPTY_DIR("dmi"),
                                                  {.name = "net",
                                                   .mode = 0555,
                                                   .list = sysfs_list_links,
                                                   .item = &sysfs_net_link,
                                                   .number_of = sysfs_find_link,
                                                   .name_of = sysfs_link_name},
                                                  EMPTY_DIR("tty"),
                                                  {0}};
static const struct proc_entry bus_entries[] = {EMPTY_DIR("cpu"), EMPTY_DIR("pci"), {0}};

static const struct proc_entry virtual_entries[] = {{.name = "net",
                                                     .mode = 0555,
                                                     .list = sysfs_list_links,
                                                     .item = &sysfs_net_dir,
                                                     .number_of = sysfs_find_link,
                                                     .name_of = sysfs_link_name},
                                                    {0}};

static const struct proc_entry devices_entries[] = {
    {.name = "system", .mode = 0555, .children = sysfs_system_entries},
    {.name = "virtual", .mode = 0555, .children = virtual_entries},
    {0},
};

static const struct proc_entry root_entries[] = {
    EMPTY_DIR("block"),
    {.name = "bus", .mode = 0555, .children = bus_entries},
    {.name = "class", .mode = 0555, .children = class_entries},
    {.name = "dev", .mode = 0555, .children = dev_entries},
    {.name = "devices", .mode = 0555, .children = devices_entries},
    EMPTY_DIR("firmware"),
    {.name = "fs", .mode = 0555, .children = fs_entries},
    {.name = "kernel", .mode = 0555, .children = kernel_entries},
    {.name = "module", .mode = 0555, .children = module_entries},
    EMPTY_DIR("power"),
    {0},
};

static const struct proc_entry root_dir = {.name = "/", .mode = 0555, .children = root_entries};

static int sysfs_mount(const struct fs_ops *fs, void *boot_arg, const char *source,
                       const char *options, const struct vfs_caller *c, struct super **out_super)
{
    (void)options;
    int r = proc_super_new(fs, boot_arg, source, &root_dir, out_super);
    if (r == 0)
        proc_super_set_net(*out_super, kernel_net_of(boot_arg, NULL, c ? c->pid : 0));
    return r;
}

const struct fs_ops sysfs_fs_ops = {.name = "sysfs", .mount = sysfs_mount};
