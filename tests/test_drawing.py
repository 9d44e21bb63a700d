from ocd_core.drawing import new_figure, png, save_figure


def test_a_picture_replaces_another_and_does_not_write_into_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "cached").hardlink_to(tmp_path / "a.png")  # as DVC's cache does
    save_figure(new_figure(1, 1, (1, 1))[0], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "cached").read_bytes() == b"old"


def test_pictures_leave_the_callers_matplotlib_alone():
    import matplotlib as mpl

    before = mpl.get_backend(auto_select=False)
    png(new_figure(1, 1, (2, 2))[0])
    assert mpl.get_backend(auto_select=False) == before


def test_letters_that_no_font_has_give_no_warning(recwarn):
    figure, axes = new_figure(1, 1, (2, 2))
    axes[0, 0].set_title("名前 \x1b \u202e")
    assert png(figure)[:4] == b"\x89PNG"
    assert not list(recwarn)


def test_dollar_signs_in_a_name_are_no_formula():
    figure, axes = new_figure(1, 1, (2, 2))
    figure.suptitle(r"layer $\frac$")
    axes[0, 0].set_title("a$b$c")
    axes[0, 0].set_xticks([0], [r"$\unknown$"])
    assert png(figure)[:4] == b"\x89PNG"
